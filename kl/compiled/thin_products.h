// Products of long rows with a few columns of weights; what they compute stands in thin_products.cpp.

#pragma once

#include <cstdint>

extern "C" {
void add_rows(const float *matrix, int64_t stride, const int64_t *positions, int64_t m, int64_t n, const float *w,
              int64_t c, int32_t threads, float *out);
void dot_rows(const float *matrix, int64_t stride, const int64_t *positions, int64_t m, int64_t n, const float *v,
              int64_t c, int32_t threads, float *out, int64_t out_stride);
}
