// SPDX-License-Identifier: Apache-2.0
// interrupt.h: how a long op notices that its caller wants to stop.
#pragma once

namespace pennyweight::cpu {

struct Interrupted {};

// Throws Interrupted where set_interrupt_check()'s function says so. To be called between parallel regions, by the
// thread that called run().
void stop_if_interrupted();

}  // namespace pennyweight::cpu
