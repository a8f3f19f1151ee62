// SPDX-License-Identifier: Apache-2.0
// pack_test.cu: layouts and floats, bit for bit; 4-bit weights against the reference, CODE_ROWS against their drawing.
#include "harness.h"
#include "pack_sm80.h"
#include "pennyweight/pack.h"
#include "reference/reference.h"

namespace pennyweight::tests {
namespace {

struct Size {
  int64_t n, k;
};

std::vector<Size> sizes() {
  if (settings().small) return {{3, 33}, {2, 64}};
  return {{1, 1}, {1, 15}, {3, 16}, {15, 17}, {5, 127}, {64, 128}, {7, 129}, {3, 255}, {2, 257}, {2, 2064}, {1, 4100}};
}

template <class T>
void fill(Buffer<T>& codes, int low, int count, uint32_t seed) {
  std::mt19937 random(static_cast<uint32_t>(settings().seed * 7919 + seed));
  for (size_t i = 0; i < codes.count; ++i) codes[i] = static_cast<T>(static_cast<int>(random() % count) + low);
}

// Codes of 8 bits there and back, at an address that is a multiple of 16 bytes or not, and as floats.
template <class Pack, class Unpack, class Dequantize>
void check_code_rows(Size size, int64_t shift, float (*decode)(uint8_t)) {
  const auto [n, k] = size;
  const std::string what = "n " + std::to_string(n) + " k " + std::to_string(k);
  Buffer<uint8_t> room(n * k + shift), weight(code_rows_bytes(n, k)), expected(weight.count);
  Buffer<float> scale(n), out(n * k), floats(n * k);
  fill(room, 0, 256, static_cast<uint32_t>(n * 1000 + k));
  uint8_t* codes = room.data + shift;
  std::memset(expected.data, 0, expected.count);
  for (int64_t i = 0; i < n; ++i) {
    scale[i] = static_cast<float>(i + 1) * 0.013f;
    std::memcpy(expected.data + i * code_row_bytes(k), codes + i * k, k);
    for (int64_t j = 0; j < k; ++j) floats[i * k + j] = decode(codes[i * k + j]) * scale[i];
  }
  Pack pack{};
  pack.codes = codes;
  pack.weight = weight.data;
  pack.n = n;
  pack.k = k;
  run_on_card(pack, "sm80");
  check_same(weight.data, expected.data, weight.count, code_row_bytes(k), "packed " + what);
  Dequantize dequantize{};
  dequantize.weight = weight.data;
  dequantize.scale = scale.data;
  dequantize.out = out.data;
  dequantize.n = n;
  dequantize.k = k;
  run_on_card(dequantize, "sm80");
  check_same(out.data, floats.data, out.count, k, "floats " + what);
  Buffer<uint8_t> back(n * k + shift);
  Unpack unpack{};
  unpack.weight = weight.data;
  unpack.codes = back.data + shift;
  unpack.n = n;
  unpack.k = k;
  run_on_card(unpack, "sm80");
  check_same(back.data + shift, codes, n * k, k, "unpacked " + what);
}

PW_CASE(pack_code_rows_int8) {
  for (Size size : sizes())
    for (int64_t shift : {0, 5})
      check_code_rows<PackInt8, UnpackInt8, DequantizeInt8>(
          size, shift, [](uint8_t code) { return static_cast<float>(static_cast<int8_t>(code)); });
}

PW_CASE(pack_code_rows_fp8) {
  for (Size size : sizes()) check_code_rows<PackFp8, UnpackFp8, DequantizeFp8>(size, 0, e4m3_f32);
}

// More rows than a launch has blocks along y.
PW_CASE(pack_code_rows_of_many_rows) {
  if (!settings().small)
    check_code_rows<PackInt8, UnpackInt8, DequantizeInt8>(
        {66000, 1}, 0, [](uint8_t code) { return static_cast<float>(static_cast<int8_t>(code)); });
}

struct Form {
  int64_t n, k, group;
  DType scale_dtype = DType::bf16;
  bool zero_points = false;
};

void check_int4(const Form& f, int64_t shift) {
  const Int4Panel panel{f.n, f.k, f.group, f.scale_dtype, f.zero_points};
  const std::string what =
      "n " + std::to_string(f.n) + " k " + std::to_string(f.k) + " group " + std::to_string(f.group);
  Buffer<int8_t> room(f.n * f.k + shift), zeros(f.n * panel.groups());
  Buffer<float> scale(f.n * panel.groups());
  Buffer<uint8_t> weight(panel.bytes()), expected(panel.bytes());
  fill(room, -8, 16, static_cast<uint32_t>(f.n * 1000 + f.k));
  fill(zeros, -8, 16, static_cast<uint32_t>(f.n * 999 + f.k));
  for (size_t i = 0; i < scale.count; ++i)
    scale[i] = round_to(f.scale_dtype, static_cast<float>(i % 977 + 1) * 1.7e-4f);
  PackInt4 pack{};
  pack.codes = room.data + shift;
  pack.scale = scale.data;
  pack.zeros = f.zero_points ? zeros.data : nullptr;
  pack.n = f.n;
  pack.k = f.k;
  pack.group_size = f.group;
  pack.scale_dtype = f.scale_dtype;
  pack.weight = expected.data;
  reference::pack_int4(pack, Executor{});
  pack.weight = weight.data;
  run_on_card(pack, "sm80");
  check_same(weight.data, expected.data, weight.count, 256, "packed " + what);

  Buffer<int8_t> codes(room.count), points(zeros.count);
  Buffer<float> scales(scale.count);
  UnpackInt4 unpack{};
  unpack.weight = weight.data;
  unpack.codes = codes.data + shift;
  unpack.scale = scales.data;
  unpack.zeros = f.zero_points ? points.data : nullptr;
  unpack.n = f.n;
  unpack.k = f.k;
  unpack.group_size = f.group;
  unpack.scale_dtype = f.scale_dtype;
  run_on_card(unpack, "sm80");
  check_same(codes.data + shift, room.data + shift, f.n * f.k, f.k, "unpacked " + what);
  check_same(scales.data, scale.data, scale.count, panel.groups(), "scales " + what);
  if (f.zero_points) check_same(points.data, zeros.data, zeros.count, panel.groups(), "zero points " + what);

  Buffer<float> out(f.n * f.k), floats(f.n * f.k);
  DequantizeInt4 dequantize{};
  dequantize.weight = weight.data;
  dequantize.n = f.n;
  dequantize.k = f.k;
  dequantize.group_size = f.group;
  dequantize.zero_points = f.zero_points;
  dequantize.scale_dtype = f.scale_dtype;
  dequantize.out = floats.data;
  reference::dequantize_int4(dequantize, Executor{});
  dequantize.out = out.data;
  run_on_card(dequantize, "sm80");
  check_same(out.data, floats.data, out.count, f.k, "floats " + what);
  for (DType dtype : {DType::bf16, DType::f16}) {
    Buffer<uint16_t> halves(f.n * f.k), wanted(f.n * f.k);
    for (size_t i = 0; i < wanted.count; ++i) store_f32(wanted.data, dtype, static_cast<int64_t>(i), floats[i]);
    finish(cuda::decode_int4_sm80(weight.data, panel, halves.data, dtype, nullptr));
    check_same(halves.data, wanted.data, wanted.count, f.k, "16-bit floats " + what);
  }
}

PW_CASE(pack_int4_panels) {
  const DType scales[] = {DType::bf16, DType::f16, DType::f32};
  int turn = 0;
  for (int64_t group : {32, 64, 128, 384})
    for (bool zero_points : {false, true}) {
      check_int4({67, 384, group, scales[turn % 3], zero_points}, turn % 2 * 3);
      if (++turn == 2 && settings().small) return;
    }
  for (int64_t n : {1, 15, 17, 63, 64, 65, 129}) check_int4({n, 96, 32, DType::f16, true}, 0);
  for (int64_t k : {1, 7, 8, 9, 15, 17, 33, 127, 129, 255, 257}) check_int4({5, k, k, DType::f32, k % 2 == 1}, 0);
}

PW_CASE(pack_nibble_words) {
  for (int64_t columns : {1, 7, 8, 9, 15, 17, 127, 129, 1032, 2048})
    for (int64_t rows : {1, 3}) {
      if (settings().small && columns > 17) return;
      const int64_t width = (columns + 7) / 8;
      const std::string what = "columns " + std::to_string(columns);
      Buffer<int8_t> codes(rows * columns), back(rows * columns);
      Buffer<int32_t> words(rows * width), expected(rows * width);
      fill(codes, -8, 16, static_cast<uint32_t>(columns));
      PackNibbles pack{codes.data, expected.data, rows, columns};
      reference::pack_nibbles(pack, Executor{});
      pack.words = words.data;
      run_on_card(pack, "sm80");
      check_same(words.data, expected.data, words.count, width, "words " + what);
      run_on_card(UnpackNibbles{words.data, back.data, rows, columns}, "sm80");
      check_same(back.data, codes.data, codes.count, columns, "codes " + what);
    }
}

PW_CASE(pack_refuses_an_unaligned_weight) {
  Buffer<uint8_t> room(4096);
  DequantizeInt8 rows{};
  rows.weight = room.data + 8;
  rows.n = rows.k = 16;
  Status status;
  check(choose_cuda(OpId::dequantize_int8, &rows, card(), nullptr, &status) < 0, "8 bytes off is taken");
  check(std::strstr(status.message, "multiple of 16 bytes") != nullptr, status.message);
  DequantizeInt4 panels{};
  panels.weight = room.data + 8;
  panels.n = panels.k = panels.group_size = 32;
  check(choose_cuda(OpId::dequantize_int4, &panels, card(), nullptr, &status) < 0, "8 bytes off is taken");
  panels.weight = room.data;
  panels.k = int64_t{1} << 40;
  panels.n = 1 << 20;
  check(choose_cuda(OpId::dequantize_int4, &panels, card(), nullptr, &status) < 0, "2^60 codes are taken");
  check(std::strstr(status.message, "more panels and groups") != nullptr, status.message);
}

}  // namespace
}  // namespace pennyweight::tests
