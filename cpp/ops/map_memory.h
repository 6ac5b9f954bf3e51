// Memory of the CPU's maps, kept for the next one.
//
// The C library gives large blocks back to the system when they are freed, and takes them anew, page by page:
// a network of small maps would spend a quarter of its time so.
#pragma once

#include "ops/arguments.h"

namespace ghostsr::ops {

// An uninitialised map on the CPU, of the dtype of `like`. A large one lies in memory that is kept when it is
// freed, up to a bound for the whole process.
Tensor cpu_map(const IntList& size, bool channels_last, const Tensor& like);

// Memory for one call, of this thread, valid until its next call or the end of it.
float* workspace(size_t floats);

// Frees the thread's workspace if it is too large to be kept for the next call.
void end_workspace();

}  // namespace ghostsr::ops
