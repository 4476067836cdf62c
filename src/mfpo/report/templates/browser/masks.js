// Run lengths behind COCO's string: 5 bits a sign, low ones first; from the fourth on, differences.
mfpo.decodeRuns = (text) => {
  const runs = [];
  let value = 0, shift = 0;
  for (let i = 0; i < text.length; i++) {
    const digit = text.charCodeAt(i) - 48;
    value |= (digit & 31) << shift;
    shift += 5;
    if (digit & 32) continue;
    if (digit & 16) value |= -1 << shift;
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
    value = shift = 0;
  }
  return runs;
};

// A mask of 0 and 1, row by row; COCO counts column by column.
mfpo.decodeMask = (text, [height, width]) => {
  const mask = new Uint8Array(height * width);
  let position = 0, inside = 0;
  for (const run of mfpo.decodeRuns(text)) {
    const end = Math.min(position + run, mask.length);
    if (inside) for (let i = position; i < end; i++) mask[(i % height) * width + Math.floor(i / height)] = 1;
    position = end;
    inside = 1 - inside;
  }
  return mask;
};

mfpo.unionOf = (masks, [height, width]) => {
  const union = new Uint8Array(height * width);
  for (const mask of masks) for (let i = 0; i < union.length; i++) union[i] |= mask[i];
  return union;
};

// Pixels of a mask that lie within `thickness` of its border; the picture's edge counts as outside.
mfpo.outlineOf = (mask, [height, width], thickness) => {
  let inner = mask;
  for (let round = 0; round < thickness; round++) {
    const eroded = new Uint8Array(inner.length);
    for (let y = 1; y < height - 1; y++) {
      for (let x = 1; x < width - 1; x++) {
        const i = y * width + x;
        eroded[i] = inner[i] & inner[i - 1] & inner[i + 1] & inner[i - width] & inner[i + width];
      }
    }
    inner = eroded;
  }
  return mask.map((value, i) => value & (1 - inner[i]));
};

mfpo.newCanvas = (width, height) => {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
};

// A mask as a canvas: tinted with a solid outline, or wholly opaque for use as a stencil.
mfpo.drawMask = (canvas, mask, [height, width], colour, stencil = false) => {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  const [red, green, blue] = [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  const outline = stencil ? mask : mfpo.outlineOf(mask, [height, width], Math.max(1, Math.round(Math.max(width, height) / 224)));
  for (let i = 0; i < mask.length; i++) {
    if (mask[i]) pixels.data.set([red, green, blue, outline[i] ? 255 : 105], 4 * i);
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
};

// A mask that falls linearly to 0 over `fade` pixels around itself, from 1 to 0, by Euclidean distance.
mfpo.fadedMask = (mask, [height, width], fade) => {
  const far = height + width, reach = Math.ceil(fade);
  const below = new Float32Array(mask.length).fill(far);  // to the nearest pixel of the mask in the same column
  for (const [from, to, by] of [[0, height, 1], [height - 1, -1, -1]]) {
    for (let x = 0; x < width; x++) {
      for (let y = from, distance = far; y !== to; y += by) {
        const i = y * width + x;
        distance = mask[i] ? 0 : distance + 1;
        below[i] = Math.min(below[i], distance);
      }
    }
  }
  return Float32Array.from(mask, (inside, i) => {
    if (inside) return 1;
    const x = i % width, row = i - x;
    let least = fade * fade;
    for (let other = Math.max(0, x - reach); other <= Math.min(width - 1, x + reach); other++) {
      least = Math.min(least, (x - other) ** 2 + below[row + other] ** 2);
    }
    return 1 - Math.sqrt(least) / fade;
  });
};

// A strength from 0 to 1 as the opacity of a canvas, for use as a stencil.
mfpo.drawStrength = (strength, [height, width]) => {
  const canvas = mfpo.newCanvas(width, height), context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  strength.forEach((value, i) => {
    pixels.data[4 * i + 3] = Math.round(255 * value);
  });
  context.putImageData(pixels, 0, 0);
  return canvas;
};

// Where a label of a mask fits: its topmost row, at the middle of that row; as shares of the picture.
mfpo.anchorOf = (mask, [height, width]) => {
  const first = mask.indexOf(1);
  if (first < 0) return null;
  const row = Math.floor(first / width);
  let last = first;
  for (let i = first; i < (row + 1) * width; i++) if (mask[i]) last = i;
  return [((first + last) / 2 - row * width) / width, row / height];
};
