// The preview of a rejected image. Pictures from files must not be read back by a page that is a file itself,
// so nothing here reads pixels: signal and noise are layered by the canvas's own compositing.

// sfc32 by Chris Doty-Humphrey, seeded by any text.
mfpo.random = (seed) => {
  let [a, b, c, d] = [0x9e3779b9, 0x243f6a88, 0xb7e15162, 1];
  const next = () => {
    const sum = (((a + b) | 0) + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + sum | 0;
    return (sum >>> 0) / 4294967296;
  };
  for (const sign of seed) {
    a ^= sign.codePointAt(0);
    next();
  }
  for (let i = 0; i < 12; i++) next();
  return next;
};

// Standard normal numbers by Box and Muller.
mfpo.normals = (random, count) => {
  const values = new Float32Array(count + (count % 2));
  for (let i = 0; i < values.length; i += 2) {
    const radius = Math.sqrt(-2 * Math.log(1 - random())), angle = 2 * Math.PI * random();
    values[i] = radius * Math.cos(angle);
    values[i + 1] = radius * Math.sin(angle);
  }
  return values.subarray(0, count);
};

const LEVELS_PER_SIGMA = 64;

// What eps adds to a picture and what it takes away, as two canvases; `scale` is their strength at sigma 1.
mfpo.noiseLayers = (seed, width, height, spread) => {
  const eps = mfpo.normals(mfpo.random(seed), width * height * 3);
  const most = Math.max(...spread);
  const [light, dark] = [1, -1].map((sign) => {
    const canvas = mfpo.newCanvas(width, height);
    const pixels = new ImageData(width, height);
    for (let i = 0, j = 0; i < eps.length; j++) {
      for (let colour = 0; colour < 3; colour++, i++, j++) {
        pixels.data[j] = sign * eps[i] * LEVELS_PER_SIGMA * spread[colour] / most;
      }
      pixels.data[j] = 255;
    }
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    return canvas;
  });
  return { light, dark, scale: most / LEVELS_PER_SIGMA };
};

const invert = (context, width, height) => {
  context.globalCompositeOperation = "difference";
  context.globalAlpha = 1;
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
};

const add = (context, layer, strength) => {
  context.globalCompositeOperation = "lighter";
  for (let left = strength; left > 0; left -= 1) {
    context.globalAlpha = Math.min(1, left);
    context.drawImage(layer, 0, 0);
  }
};

// where(mask, signal * x + sigma * eps, x) on the canvas; `stencil` is null for the whole picture.
mfpo.drawPreview = (canvas, picture, layers, stencil, signal, mean) => {
  const { width, height } = canvas;
  const work = mfpo.newCanvas(width, height), context = work.getContext("2d");
  const strength = Math.sqrt(1 - signal * signal) * layers.scale;
  context.fillStyle = `rgb(${mean.map(Math.round).join(",")})`;
  context.fillRect(0, 0, width, height);
  context.globalAlpha = signal;
  context.drawImage(picture, 0, 0, width, height);
  add(context, layers.light, strength);
  invert(context, width, height);
  add(context, layers.dark, strength);
  invert(context, width, height);
  if (stencil) {
    context.globalCompositeOperation = "destination-in";
    context.imageSmoothingEnabled = false;
    context.drawImage(stencil, 0, 0, width, height);
  }
  const target = canvas.getContext("2d");
  target.drawImage(picture, 0, 0, width, height);
  target.drawImage(work, 0, 0);
};
