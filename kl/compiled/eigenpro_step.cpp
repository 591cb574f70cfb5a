// Parts of a step of EigenPro 2, each in one call, because their operations are short: what they compute, and in which
// precision, is what fitted.py, iteration.py and optimizer.py of kl/eigenpro write with tensors.
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

// g = f(X_B) + ridge alpha_B - Y_B, rounded to floats; returns the sum of the squares of g before they are rounded. f(X_B)
// is (c, m), g is (m, c), alpha and the targets Y are (n, c).
double eigenpro_residual(const int64_t *positions, int64_t m, int64_t c, const double *values, const float *targets,
                         const double *alpha, double ridge, float *residual) {
    double squares = 0.0;
    for (int64_t i = 0; i < m; i++)
        for (int64_t k = 0; k < c; k++) {
            const int64_t at = positions[i] * c + k;
            double g = values[k * m + i] - targets[at];
            if (ridge != 0.0) g += ridge * alpha[at];
            residual[i * c + k] = g;
            squares += g * g;
        }
    return squares;
}

// w_B = -scale g, and w_S = scale E diag(D) E^T K(X_S, X_B) g; alpha, (n, c), gets both. E is (q, s), g and w_B are (m, c)
// and w_S is (c, s).
void eigenpro_update(const float *matrix, int64_t stride, const int64_t *positions, int64_t m, int64_t s, int64_t c,
                     int32_t threads, const float *vectors, const float *damping, int64_t q, const float *residual,
                     float scale, double *alpha, float *on_batch, double *on_subsample) {
    for (int64_t i = 0; i < m; i++)
        for (int64_t k = 0; k < c; k++)
            alpha[positions[i] * c + k] += on_batch[i * c + k] = residual[i * c + k] * -scale;
    std::vector<float> of_subsample(c * s), projected(c * q), coefficients(q * c), added(c * s);
    add_rows(matrix, stride, positions, m, s, residual, c, threads, of_subsample.data());
    dot_rows(vectors, s, nullptr, q, s, of_subsample.data(), c, threads, projected.data(), q);
    for (int64_t r = 0; r < q; r++)
        for (int64_t k = 0; k < c; k++) coefficients[r * c + k] = damping[r] * projected[k * q + r] * scale;
    add_rows(vectors, s, nullptr, q, s, coefficients.data(), c, threads, added.data());
    std::copy(added.begin(), added.end(), on_subsample);
    for (int64_t j = 0; j < s; j++)
        for (int64_t k = 0; k < c; k++) alpha[j * c + k] += added[k * s + j];
}
}
