// SPDX-License-Identifier: Apache-2.0
// codes.h: what a code of 8 bits is.
#pragma once

namespace pennyweight::cuda {

enum class Codes { int8, e4m3 };

}  // namespace pennyweight::cuda
