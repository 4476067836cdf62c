"""Answer logs of lmms-eval and VLMEvalKit: read for scoring, written for their scripts.

lmms-eval (``--log_samples``) writes ``*_samples_TASK.jsonl``: ``doc_id`` (position in its dataset), ``input``
(the prompt, question included), ``filtered_resps`` (the answer) and ``target``. VLMEvalKit writes a table,
``.xlsx`` by default and ``.tsv`` or ``.json`` on request, with ``index``, ``question`` and ``prediction``.
Neither has our ids, so answers find their items by question where it is unique, and by position where many
items share one (AMBER asks the same of every picture); then the question must be that of the item. Logs that
were written here have a column ``id`` besides, which comes first.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from mfpo.data.files import read_jsonl, write_atomic
from mfpo.errors import UserError, nearest
from mfpo.evaluation.answer_files import encodable
from mfpo.records import Prediction

if TYPE_CHECKING:
    from mfpo.evaluation.benchmarks.base import Item

LogFormat: TypeAlias = Literal["lmms-eval", "vlmevalkit"]
Answered: TypeAlias = "tuple[int, Item, Prediction]"
"""An item's place in the whole benchmark, the item, and the answer to it."""
TABLE_ENDINGS = (".xlsx", ".tsv", ".csv", ".json")


@dataclass(frozen=True, slots=True)
class LoggedAnswer:
    """An answer as another program logged it.

    Attributes:
        position: Its item's place in that program's dataset, from 0.
        question: What was asked, perhaps with more around it; empty where the log does not say.
        answer: What the model said.
        where: File and line or row, for messages.
        id: Id of its item, which only a log of ours knows; empty in others.
    """

    position: int
    question: str
    answer: str
    where: str
    id: str = ""


def log_format(path: str | Path) -> LogFormat | None:
    """Whose log a file is, by its columns; None for a file of ours or of a benchmark's own."""
    path = Path(path)
    if not path.is_file():
        return None
    if path.suffix.lower() in (".xlsx", ".tsv"):
        return "vlmevalkit"
    if path.suffix.lower() != ".jsonl":
        return None
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            record = json.loads(next((line for line in file if line.strip()), ""))
    except (OSError, ValueError, RecursionError):
        return None  # whoever reads the answers says what is wrong with the file
    known = isinstance(record, dict) and "doc_id" in record
    return "lmms-eval" if known and ("filtered_resps" in record or "resps" in record) else None


def read_log(path: str | Path, items: Sequence[Item], kind: LogFormat | None = None) -> list[Prediction]:
    """The answers of a log as answers to a benchmark's items.

    Args:
        path: The log.
        items: The benchmark's items in their order.
        kind: Whose log it is; found out when None.

    Raises:
        UserError: The log cannot be read, has no answers, or an answer fits none of the items.
    """
    kind = kind or log_format(path)
    if kind is None:
        raise UserError(
            "no log of lmms-eval or VLMEvalKit",
            where=str(path),
            fix="lmms-eval writes *_samples_*.jsonl with --log_samples, VLMEvalKit MODEL_DATASET.xlsx",
        )
    logged = _READERS[kind](Path(path))
    if not logged:
        raise UserError("the log holds no answers", where=str(path))
    return _matched(logged, items)


def write_log(path: str | Path, items: Sequence[Item], answers: Mapping[str, Prediction], kind: str) -> None:
    """Write answers as lmms-eval or VLMEvalKit would have logged them.

    Args:
        path: File to write, atomically: ``.jsonl`` for lmms-eval; ``.tsv``, ``.csv`` or ``.json`` for
            VLMEvalKit.
        items: All items of the benchmark in their order, whose places both programs go by.
        answers: Answers by the item's id; items without one are left out.
        kind: ``lmms-eval`` or ``vlmevalkit``.

    Raises:
        UserError: The format or the file's ending is not known.
    """
    if kind not in _WRITERS:
        raise UserError("unknown format", where=f"--format {kind}", fix=nearest(kind, _WRITERS))
    answered = [(at, item, answers[item.id]) for at, item in enumerate(items) if item.id in answers]
    write_atomic(path, _WRITERS[kind](Path(path), answered))


def _read_lmms_eval(path: Path) -> list[LoggedAnswer]:
    found = []
    for number, record in enumerate(read_jsonl(path), start=1):
        where = f"{path}:{number}"
        answer = record.get("filtered_resps", record.get("resps"))
        while isinstance(answer, list) and answer:
            answer = answer[0]
        position, question = record.get("doc_id"), record.get("input", "")
        if not isinstance(answer, str) or not isinstance(position, int):
            raise UserError(
                "a line needs a number `doc_id` and a text `filtered_resps`",
                where=where,
                fix="run lmms-eval with --log_samples on a task that generates text",
            )
        question = question if isinstance(question, str) else ""
        found.append(LoggedAnswer(position, question, answer, where, str(record.get("id") or "")))
    return found


def _read_vlmevalkit(path: Path) -> list[LoggedAnswer]:
    rows = _table(path)
    found = []
    for number, row in enumerate(rows):
        where = f"{path}, row {number + 1}"
        if "prediction" not in row:
            have = ", ".join(map(str, row))
            raise UserError(
                f"no column `prediction`, the table has {have}",
                where=where,
                fix="this must be VLMEvalKit's MODEL_DATASET table, not its scores",
            )
        cells = (row.get(name) for name in ("question", "prediction", "id"))
        question, answer, own = ("" if cell is None else str(cell) for cell in cells)
        found.append(LoggedAnswer(number, question, answer, where, own))
    return found


def _table(path: Path) -> list[dict[str, Any]]:
    """Rows of a table by column; cells without a value are None."""
    ending = path.suffix.lower()
    try:
        if ending == ".xlsx":
            import pandas as pd

            frame = pd.read_excel(path, dtype=object)
            return [
                {str(name): None if pd.isna(value) else value for name, value in row.items()}
                for row in frame.to_dict("records")
            ]
        text = path.read_text(encoding="utf-8-sig")
    except ImportError:
        raise UserError(
            "Excel files need openpyxl",
            where=str(path),
            fix="pip install openpyxl, or let VLMEvalKit write TSV (PRED_FORMAT=tsv)",
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"the table cannot be read: {error}", where=str(path)) from None
    if ending == ".json":
        rows = json.loads(text)
        return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    # Answers are long, and the module's own limit is 128 KiB a cell.
    csv.field_size_limit(1 << 27)
    # Not `splitlines`, which also ends lines at characters that an answer may hold.
    return list(csv.DictReader(StringIO(text, newline=""), delimiter="\t" if ending == ".tsv" else ","))


def _matched(logged: Sequence[LoggedAnswer], items: Sequence[Item]) -> list[Prediction]:
    """Answers with the ids of their items."""
    questions = Counter(_plain(item.question) for item in items)
    unique = {_plain(item.question): item for item in items if questions[_plain(item.question)] == 1}
    by_id = {item.id: item for item in items}
    # Another program's ids may look like ours; all of them hardly do.
    ours = all(answer.id in by_id and _fits(answer, by_id[answer.id]) for answer in logged)
    predictions: dict[str, Prediction] = {}
    for answer in logged:
        if ours:
            item = by_id[answer.id]
        else:
            item = unique.get(_plain(answer.question)) or _at_position(answer, items)
        if item.id in predictions:
            raise UserError(f"item {item.id!r} is answered twice", where=answer.where)
        predictions[item.id] = Prediction(
            item.id, item.question, encodable(answer.answer), item.image, item.kind
        )
    return list(predictions.values())


def _at_position(answer: LoggedAnswer, items: Sequence[Item]) -> Item:
    if 0 <= answer.position < len(items):
        item = items[answer.position]
        if _fits(answer, item):
            return item
        detail = f"asked was {answer.question!r}, item {item.id!r} is {item.question!r}"
    else:
        detail = f"it is number {answer.position + 1}, the benchmark has {len(items)} items"
    raise UserError(
        f"the answer fits no item: {detail}",
        where=answer.where,
        fix="the log must be of the same benchmark and split",
    )


def _fits(answer: LoggedAnswer, item: Item) -> bool:
    """Whether the log may mean this item's question."""
    asked, wanted = _plain(answer.question), _plain(item.question)
    return not asked or wanted in asked or asked in wanted


def _plain(question: str) -> str:
    """A question without image placeholders, case and runs of white space."""
    return " ".join(re.sub(r"<image\s*\d*>", " ", question).casefold().split())


def _lmms_eval_lines(path: Path, answered: Sequence[Answered]) -> str:
    lines = [
        json.dumps(
            {
                "doc_id": position,
                "target": "",
                "filtered_resps": prediction.answer,
                "input": item.question,
                "id": item.id,
                "image": item.image,
            },
            ensure_ascii=False,
        )
        for position, item, prediction in answered
    ]
    return "\n".join([*lines, ""])


def _vlmevalkit_table(path: Path, answered: Sequence[Answered]) -> str:
    rows = [
        {
            "index": position,
            "id": item.id,
            "image_path": item.image,
            "question": item.question,
            "category": item.kind,
            "prediction": prediction.answer,
        }
        for position, item, prediction in answered
    ]
    ending = path.suffix.lower()
    if ending == ".json":
        return json.dumps(rows, ensure_ascii=False, indent=1)
    if ending not in (".tsv", ".csv"):
        raise UserError(
            "VLMEvalKit's table is written as .tsv, .csv or .json", where=str(path), fix="name such a file"
        )
    import io

    text = io.StringIO()
    writer = csv.DictWriter(
        text, list(rows[0]) if rows else [], delimiter="\t" if ending == ".tsv" else ",", lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


_READERS: MappingProxyType[str, Callable[[Path], list[LoggedAnswer]]] = MappingProxyType(
    {"lmms-eval": _read_lmms_eval, "vlmevalkit": _read_vlmevalkit}
)
_WRITERS: MappingProxyType[str, Callable[[Path, Sequence[Answered]], str]] = MappingProxyType(
    {"lmms-eval": _lmms_eval_lines, "vlmevalkit": _vlmevalkit_table}
)
