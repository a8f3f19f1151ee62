// SPDX-License-Identifier: Apache-2.0
// walk.h: which tile of y, and which part of K, a block of a GEMM works on. Plain arithmetic, for host and device.
//
// Blocks are numbered in bands of kBand row tiles; within a band a column of tiles is finished before the next begins,
// so that the blocks at work at one time share few column tiles of the weight and the band's rows of x in L2:
//
//                n →  0    1    2                   split s of S: the same walk again, S times in a row; it multiplies
//            m   ┌────┬────┬────┐                   k tiles [s·T/S, (s+1)·T/S) of T and leaves a partial sum
//            ↓ 0 │ 0  │ 2  │ 4  │  band of 2
//              1 │ 1  │ 3  │ 5  │
//                ├────┼────┼────┤
//              2 │ 6  │ 7  │ 8  │  the last band may be lower
//                └────┴────┴────┘
#pragma once
#include <cstdint>

#include "pennyweight/numerics.h"

namespace pennyweight::cuda {

struct Walk {
  int m_tiles, n_tiles, k_tiles;
  int splits;  // of K; all of it together fits 31 bits

  PW_HD int blocks() const { return m_tiles * n_tiles * splits; }
};

struct Place {
  int m_tile, n_tile, k_begin, k_end;  // counted in tiles
  int split;
};

constexpr int kBand = 8;

static PW_HD inline Place place_of(const Walk& w, unsigned block) {
  const unsigned m_tiles = w.m_tiles, n_tiles = w.n_tiles, tiles = m_tiles * n_tiles;
  const unsigned split = block / tiles, tile = block - split * tiles;
  const unsigned height = m_tiles < kBand ? m_tiles : kBand;
  const unsigned band = tile / (height * n_tiles), within = tile - band * (height * n_tiles);
  const unsigned left = m_tiles - band * height, rows = left < height ? left : height;
  const unsigned column = within / rows;
  const int64_t k_tiles = w.k_tiles;
  return {static_cast<int>(band * height + within - column * rows), static_cast<int>(column),
          static_cast<int>(static_cast<unsigned>(split * k_tiles) / static_cast<unsigned>(w.splits)),
          static_cast<int>(static_cast<unsigned>((split + 1) * k_tiles) / static_cast<unsigned>(w.splits)),
          static_cast<int>(split)};
}

// False where a problem has more tiles than a launch has blocks; else fills in the walk, with K in one part.
static inline bool make_walk(int64_t m, int64_t n, int64_t k, int64_t bm, int64_t bn, int64_t bk, Walk* walk) {
  constexpr int64_t most = 0x7fffffff / 16;  // of blocks, so that K may still be split
  const int64_t m_tiles = (m + bm - 1) / bm, n_tiles = (n + bn - 1) / bn, k_tiles = (k + bk - 1) / bk;
  if (m_tiles > most || n_tiles > most || k_tiles > most || m_tiles * n_tiles > most) return false;
  *walk = {static_cast<int>(m_tiles), static_cast<int>(n_tiles), static_cast<int>(k_tiles), 1};
  return true;
}

// Into how many parts to cut K so that a small problem fills `slots` places for blocks: each part has at least `least`
// k tiles, and there are at most 16, since the second pass reads all of them.
static inline int splits_for(const Walk& w, int64_t slots, int least) {
  int64_t splits = slots / (static_cast<int64_t>(w.m_tiles) * w.n_tiles);
  if (splits > w.k_tiles / least) splits = w.k_tiles / least;
  if (splits > 16) splits = 16;
  return splits < 1 ? 1 : static_cast<int>(splits);
}

}  // namespace pennyweight::cuda
