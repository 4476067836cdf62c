"""The keyword graph of paper 3.1 and its ranks, in numpy.

Nodes are candidates in the order of their first occurrence. An edge matrix W is float64 ``[N, N]`` with
``W[j, i]`` the weight of the edge from j into i, so that a row is what a node sends out; 0 means no edge.

    theta_ij = sum over occurrences of 1/(1 + |l_i - l_j|^phi)       [`positional_weights`]
    sigma_ij = gamma * max(0, cos(v_i, v_j))                         [`semantic_weights`]
    mu = theta + sigma, between different topics                     [`topics`, `edges`]
    tau = mu, more toward a topic's first variant                    [`contextual_weights`]
    omega_(j into i) = tau_(j into i) * kappa_i                      [`position_decay`]
    r_i = (1-a) + a * sum_j r_j omega_(j into i) / sum_m omega_(j into m)   [`rank`]

The paper leaves tau undefined; here it is the adjustment of Boudin (2018), whose multipartite graph the paper
builds on. Its kappa uses the position of one of the two nodes: on the sender it would cancel in the
normalisation of the walk, so it is the receiver's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]


def topics(stems: Sequence[Collection[str]], distance: float) -> NDArray[np.int64]:
    """Clusters of candidates that share words: average linkage on the Jaccard distance of their stems.

    Args:
        stems: The stemmed words of each of N candidates.
        distance: Clusters merge up to this average distance, in [0, 1].

    Returns:
        int64 ``[N]``, the topic of each candidate, numbered from 0 by first occurrence.
    """
    numbers = np.arange(len(stems), dtype=np.int64)
    seen = Counter(word for words in stems for word in set(words))
    # Who shares no word with anybody is at distance 1 from all, and stays alone unless that is allowed.
    close = [i for i, words in enumerate(stems) if distance >= 1 or any(seen[word] > 1 for word in words)]
    if len(close) < 2:
        return numbers
    column = {word: index for index, word in enumerate(sorted(set().union(*(stems[i] for i in close))))}
    has_word = np.zeros((len(close), len(column)))
    for row, node in enumerate(close):
        has_word[row, [column[word] for word in stems[node]]] = 1
    common = has_word @ has_word.T
    sizes = has_word.sum(1)
    jaccard = 1 - common / (sizes[:, None] + sizes[None, :] - common)
    tree = linkage(squareform(jaccard, checks=False), method="average")
    labels = fcluster(tree, t=distance, criterion="distance")
    leaders: dict[int, int] = {}
    for node, label in zip(close, labels, strict=True):
        numbers[node] = leaders.setdefault(int(label), node)
    return np.unique(numbers, return_inverse=True)[1].astype(np.int64)


def edges(topic: NDArray[np.int64], *, complete: bool = False) -> NDArray[np.bool_]:
    """Which nodes are joined: those of different topics (a multipartite graph), or all (``complete``).

    Args:
        topic: int64 ``[N]`` from [`topics`].
        complete: Whether candidates of one topic are joined as well.

    Returns:
        bool ``[N, N]``, symmetric, False on the diagonal.
    """
    if complete:
        return ~np.eye(len(topic), dtype=bool)
    joined: NDArray[np.bool_] = topic[:, None] != topic[None, :]
    return joined


def positional_weights(offsets: Sequence[Sequence[int]], phi: float) -> Matrix:
    """theta_ij = sum over l_i in L(k_i), l_j in L(k_j) of 1/(1 + |l_i - l_j|^phi).

    Args:
        offsets: Word offsets of the occurrences of each of N candidates, at least one each.
        phi: Decay with distance, at least 0; 0 gives every pair of occurrences 1/2.

    Returns:
        float64 ``[N, N]``, symmetric, 0 on the diagonal.
    """
    if not offsets:
        return np.zeros((0, 0))
    everywhere = np.array([place for places in offsets for place in places], dtype=np.float64)
    theta: Matrix = 1 / (1 + np.abs(everywhere[:, None] - everywhere[None, :]) ** phi)
    if len(everywhere) > len(offsets):
        first_of_node = np.cumsum([0, *(len(places) for places in offsets[:-1])])
        theta = np.add.reduceat(np.add.reduceat(theta, first_of_node, axis=0), first_of_node, axis=1)
    np.fill_diagonal(theta, 0)
    return theta


def semantic_weights(vectors: NDArray[np.floating], gamma: float) -> Matrix:
    """sigma_ij = gamma * max(0, S_ij), S the cosine; a negative weight would break the walk.

    Args:
        vectors: ``[N, d]`` unit vectors of the candidates.
        gamma: Weight beside theta, at least 0.

    Returns:
        float64 ``[N, N]``, symmetric, 0 on the diagonal.
    """
    vectors = vectors.astype(np.float64)
    sigma: Matrix = gamma * np.clip(vectors @ vectors.T, 0, None)
    np.fill_diagonal(sigma, 0)
    return sigma


def contextual_weights(
    mu: Matrix, topic: NDArray[np.int64], first: Sequence[int], alpha_ctx: float
) -> Matrix:
    """tau: every weight toward the first variant f of a topic T grows with the weights of its siblings.

        tau_(j into f) = mu_jf + alpha_ctx * exp(1/(1+l_f)) * sum over v in T without f of mu_jv, j not in T

    All other weights stay mu. This is the weight adjustment of Boudin (2018): the first variant stands for
    its topic.

    Args:
        mu: float64 ``[N, N]``, 0 where there is no edge.
        topic: int64 ``[N]`` from [`topics`].
        first: l_i, offset of each candidate's first occurrence, increasing.
        alpha_ctx: Strength, at least 0.

    Returns:
        float64 ``[N, N]``, no longer symmetric.
    """
    tau = mu.copy()
    for number in np.flatnonzero(np.bincount(topic) > 1):
        variants = np.flatnonzero(topic == number)
        leader, siblings = variants[0], variants[1:]
        outside = topic != number
        gain = alpha_ctx * np.exp(1 / (1 + first[leader]))
        tau[outside, leader] += gain * mu[np.ix_(outside, siblings)].sum(1)
    return tau


def position_decay(first: Sequence[int], length: int, decay: float) -> Vector:
    """kappa_i = exp(-lambda * l_i / length), the weight of what leads into node i.

    Args:
        first: l_i, offset of each candidate's first occurrence, in [0, length).
        length: Number of words of the text.
        decay: lambda, at least 0; 0 gives 1 everywhere.

    Returns:
        float64 ``[N]`` in (0, 1].
    """
    kappa: Vector = np.exp(-decay * np.asarray(first, dtype=np.float64) / max(length, 1))
    return kappa


def rank(omega: Matrix, damping: float) -> Vector:
    """Ranks r, the exact solution of r_i = (1-a) + a * sum_j r_j * omega_(j into i) / sum_m omega_(j into m).

    The fixed point that the paper iterates to is unique for a < 1 and is had from one linear system. A node
    that sends nothing out (alone in the graph, or all candidates in one topic) passes nothing on; where every
    node sends something, r is N times PageRank with uniform teleportation, and its mean is 1.

    Args:
        omega: float64 ``[N, N]``, at least 0, ``omega[j, i]`` from j into i.
        damping: a, in [0, 1).

    Returns:
        float64 ``[N]``, each at least 1-a.
    """
    sent = omega.sum(1, keepdims=True)
    share = np.divide(omega, sent, out=np.zeros_like(omega), where=sent > 0)
    count = len(omega)
    ranks: Vector = np.linalg.solve(np.eye(count) - damping * share.T, np.full(count, 1 - damping))
    return ranks
