// SPDX-License-Identifier: Apache-2.0
// place.h: where an op runs: on the CPU, or on a card, in torch's current stream there.
#pragma once
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <string>

namespace pennyweight::torch_ops {

// Made first in every op that cards take, of its first tensor: until its end all tensors must be there (checks.h
// looks), and a card is the current device. Without one an op runs on the CPU.
class Place {
 public:
  explicit Place(const torch::stable::Tensor& first);
  ~Place();
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

  static const Place* current();  // of this thread; null: the CPU
  bool has(const torch::stable::Tensor& t) const;
  bool is_card() const { return card_; }
  int32_t index() const { return index_; }
  std::string name() const;  // "the CPU", "cuda:0"
  void* stream() const;      // torch's current stream on this card
  const torch::stable::Tensor& first() const { return first_; }

 private:
  torch::stable::Tensor first_;
  const Place* outer_;
  bool card_;
  int32_t index_ = 0;
  void* guard_ = nullptr;  // puts the device back that was current before
};

}  // namespace pennyweight::torch_ops
