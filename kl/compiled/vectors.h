// Vectors as wide as the processor's registers, which the compiler's own operators work on.

#pragma once

#include <cstdint>

#if defined(__AVX512BW__)
constexpr int BYTES = 64, VECTORS = 4;  // VECTORS times 6 sums fit into the registers
#elif defined(__AVX2__)
constexpr int BYTES = 32, VECTORS = 2;
#else
constexpr int BYTES = 16, VECTORS = 2;
#endif
constexpr int LANES = BYTES / 4, COLUMNS = VECTORS * LANES;
constexpr int CACHE_LINE = 16;  // floats

typedef int32_t Lanes __attribute__((vector_size(BYTES)));
typedef float Floats __attribute__((vector_size(BYTES)));
// At any address:
typedef Lanes LooseLanes __attribute__((aligned(1), may_alias));
typedef Floats LooseFloats __attribute__((aligned(1), may_alias));

#define UNROLL _Pragma("GCC unroll 16")  // so that arrays of vectors are registers
