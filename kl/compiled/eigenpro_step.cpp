// Two parts of a step of EigenPro 2, each in one call, because their operations are short: what they compute, and in which
// precision, is what kl/eigenpro/fitted.py and kl/eigenpro/optimizer.py write with tensors.
//
// B are the m rows `positions` of all rows; `matrix` is K(X, X_S), with `stride` values from row to row and s columns.

#include <algorithm>
#include <vector>

#include "thin_products.h"

extern "C" {

// f(X_B) = values[B] + K(X_B, X_S) pending; values are (c, n), pending (c, s) and out (c, m).
void eigenpro_values(const float *matrix, int64_t stride, const int64_t *positions, int64_t m, int64_t s, int64_t c,
                     int32_t threads, const double *values, int64_t n, const double *pending, double *out) {
    const std::vector<float> weights(pending, pending + c * s);
    std::vector<float> sums(c * m);
    dot_rows(matrix, stride, positions, m, s, weights.data(), c, threads, sums.data(), m);
    for (int64_t k = 0; k < c; k++)
        for (int64_t i = 0; i < m; i++) out[k * m + i] = values[k * n + positions[i]] + sums[k * m + i];
}

// w_B = -scale g, and w_S = scale E diag(D) E^T K(X_S, X_B) g; alpha, (n, c), gets both. E is (q, s), g and w_B are (m, c)
// and w_S is (c, s).
void eigenpro_update(const float *matrix, int64_t stride, const int64_t *positions, int64_t m, int64_t s, int64_t c,
                     int32_t threads, const float *vectors, const float *damping, int64_t q, const float *residual,
                     float scale, double *alpha, float *on_batch, float *on_subsample) {
    for (int64_t i = 0; i < m; i++)
        for (int64_t k = 0; k < c; k++)
            alpha[positions[i] * c + k] += on_batch[i * c + k] = residual[i * c + k] * -scale;
    std::vector<float> of_subsample(c * s), projected(c * q), coefficients(q * c);
    add_rows(matrix, stride, positions, m, s, residual, c, threads, of_subsample.data());
    dot_rows(vectors, s, nullptr, q, s, of_subsample.data(), c, threads, projected.data(), q);
    for (int64_t r = 0; r < q; r++)
        for (int64_t k = 0; k < c; k++) coefficients[r * c + k] = damping[r] * projected[k * q + r] * scale;
    std::fill(on_subsample, on_subsample + c * s, 0.0f);
    add_rows(vectors, s, nullptr, q, s, coefficients.data(), c, threads, on_subsample);
    for (int64_t j = 0; j < s; j++)
        for (int64_t k = 0; k < c; k++) alpha[j * c + k] += on_subsample[k * s + j];
}
}
