"use strict";
// The random numbers that PyTorch draws on a CPU from torch.Generator().manual_seed(seed), to a float's digits: a seed is
// the same sound here as in generate.py.

/** Matsumoto, Nishimura, "Mersenne Twister", ACM TOMACS 1998; and PyTorch's ATen/core/DistributionsHelper.h. */
class Generator {
  constructor(seed) {
    this.state = new Uint32Array(624);
    this.state[0] = seed % 2 ** 32;
    for (let i = 1; i < 624; i++) {
      const before = this.state[i - 1];
      this.state[i] = Math.imul(1812433253, before ^ (before >>> 30)) + i;
    }
    this.at = 624;
  }

  /** The next 32 bits. */
  next() {
    const { state } = this;
    if (this.at === 624) {
      for (let i = 0; i < 624; i++) {
        const both = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7fffffff);
        state[i] = state[(i + 397) % 624] ^ (both >>> 1) ^ (both & 1 ? 0x9908b0df : 0);
      }
      this.at = 0;
    }
    let bits = state[this.at++];
    bits ^= bits >>> 11;
    bits ^= (bits << 7) & 0x9d2c5680;
    bits ^= (bits << 15) & 0xefc60000;
    return (bits ^ (bits >>> 18)) >>> 0;
  }

  /** In [0, 1), as torch.rand. */
  uniform() {
    return (this.next() & 0xffffff) / 2 ** 24;
  }

  uniformDouble() {
    const high = this.next() & 0x1fffff;
    return (high * 2 ** 32 + this.next()) / 2 ** 53;
  }
}

/** torch.rand(n). */
const uniformNoise = (n, seed) => {
  const generator = new Generator(seed);
  return Float32Array.from({ length: n }, () => generator.uniform());
};

/** torch.randn(n). */
function normalNoise(n, seed) {
  const generator = new Generator(seed);
  const values = new Float32Array(n);
  if (n < 16) {
    for (let i = 0; i < n; i += 2) {
      const angle = 2 * Math.PI * generator.uniformDouble();
      const radius = Math.sqrt(-2 * Math.log1p(-generator.uniformDouble()));
      values[i] = radius * Math.cos(angle);
      if (i + 1 < n) values[i + 1] = radius * Math.sin(angle);
    }
    return values;
  }
  for (let i = 0; i < n; i++) values[i] = generator.uniform();
  const fill = (start) => {
    for (let i = start; i < start + 8; i++) {
      const radius = Math.sqrt(-2 * Math.log(1 - values[i]));
      const angle = 2 * Math.PI * values[i + 8];
      values[i] = radius * Math.cos(angle);
      values[i + 8] = radius * Math.sin(angle);
    }
  };
  for (let start = 0; start + 16 <= n; start += 16) fill(start);
  if (n % 16) {
    for (let i = n - 16; i < n; i++) values[i] = generator.uniform();
    fill(n - 16);
  }
  return values;
}
