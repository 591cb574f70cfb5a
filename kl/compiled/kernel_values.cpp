// Kernel values from inner products, in one pass over a tile that lies in cache.
//
// Loops are plain: the compiler turns them into vector instructions. Threads share the rows of a tile.

#include <cmath>
#include <cstdint>
#include <cstring>

static inline float of_bits(int32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// exp(x) for x <= 0, to 1 ulp; 0 below -87.3, where float32 has no normal numbers.
// Source: S. L. Moshier, Cephes Mathematical Library, expf: x = n log 2 + r, and a polynomial in r.
static inline float exp_of_negative(float x) {
    const float bounded = x < -87.3f ? -87.3f : x;
    const float n = std::fma(bounded, 1.44269504f, 12582912.0f) - 12582912.0f;  // 1.5 * 2^23 rounds to whole numbers
    float r = std::fma(n, -0.693359375f, bounded);
    r = std::fma(n, 2.12194440e-4f, r);
    float p = 1.9875691500e-4f;
    p = std::fma(p, r, 1.3981999507e-3f);
    p = std::fma(p, r, 8.3334519073e-3f);
    p = std::fma(p, r, 4.1665795894e-2f);
    p = std::fma(p, r, 1.6666665459e-1f);
    p = std::fma(p, r, 5.0000001201e-1f);
    p = std::fma(p, r * r, r) + 1.0f;
    const float value = p * of_bits(((int32_t)n + 127) << 23);
    return x < -87.3f ? 0.0f : value;
}

// acos(1 - v) for v in [0, 2] to 2 ulp, also near v = 0: 2 asin(sqrt(t)) with t = v / 2 up to 1/2, else pi less that of
// 1 - t. asin(sqrt(t)) / sqrt(t) is a polynomial of degree 8, of relative error 2.3e-9 (least squares at Chebyshev
// points).
static inline float angle_of(float v) {
    const bool wide = v > 1.0f;
    const float t = 0.5f * (wide ? 2.0f - v : v);
    float p = 0.126604223f;
    p = std::fma(p, t, -0.141247548f);
    p = std::fma(p, t, 0.111685587f);
    p = std::fma(p, t, -0.00881148468f);
    p = std::fma(p, t, 0.0362279991f);
    p = std::fma(p, t, 0.0440398399f);
    p = std::fma(p, t, 0.0750307444f);
    p = std::fma(p, t, 0.166666069f);
    p = std::fma(p, t, 1.0f);
    const float half = std::sqrt(t) * p;
    return wide ? 3.14159265f - 2.0f * half : 2.0f * half;
}

// Formulas of the squared distance s, with t = rate sqrt(s).

struct Distances {  // s itself
    float rate;
    float operator()(float s) const { return s; }
};

struct Gaussian {  // exp(-rate s)
    float rate;
    float operator()(float s) const { return exp_of_negative(-rate * s); }
};

struct Laplacian {  // exp(-t)
    float rate;
    float operator()(float s) const { return exp_of_negative(-rate * std::sqrt(s)); }
};

struct Matern32 {  // (1 + t) exp(-t)
    float rate;
    float operator()(float s) const {
        const float t = rate * std::sqrt(s);
        return (1.0f + t) * exp_of_negative(-t);
    }
};

struct Matern52 {  // (1 + t + t^2 / 3) exp(-t)
    float rate;
    float operator()(float s) const {
        const float t = rate * std::sqrt(s);
        return std::fma(t, std::fma(t, 0.333333343f, 1.0f), 1.0f) * exp_of_negative(-t);
    }
};

template <typename Formula>
static inline void of_distances(float *values, int64_t count, Formula formula, int32_t threads) {
#pragma omp parallel for simd num_threads(threads) schedule(static)
    for (int64_t i = 0; i < count; i++) values[i] = formula(values[i]);
}

template <typename Formula>
static inline void of_integers(const int32_t *product, const int32_t *rows, const int32_t *columns, float scale,
                               int64_t m, int64_t p, Formula formula, int32_t threads, float *out) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < m; i++) {
        const int32_t row = rows[i];
#pragma omp simd
        for (int64_t j = 0; j < p; j++) {
            const float value = formula(scale * (float)(row + columns[j] - 2 * product[i * p + j]));
            memcpy(out + i * p + j, &value, sizeof value);
        }
    }
}

template <typename Formula>
static inline void of_floats(float *values, const float *rows, const float *columns, int64_t m, int64_t p,
                             Formula formula, int32_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < m; i++) {
        const float row = rows[i];
#pragma omp simd
        for (int64_t j = 0; j < p; j++) {
            const float value = std::fma(-2.0f, values[i * p + j], row) + columns[j];
            values[i * p + j] = formula(value < 0.0f ? 0.0f : value);
        }
    }
}

extern "C" {

// A formula of squared distances, in their memory, and of what distances are computed from:
//
//     scale (rows_i + columns_j - 2 product_ij), where the sum is of whole numbers; product and out may be the same memory
//     max(rows_i - 2 values_ij + columns_j, 0), in the memory of the values
#define FORMULA(name, Formula)                                                                                      \
    void name(float *values, int64_t count, float rate, int32_t threads) {                                          \
        of_distances(values, count, Formula{rate}, threads);                                                        \
    }                                                                                                               \
    void name##_of_integers(const int32_t *product, const int32_t *rows, const int32_t *columns, float scale,       \
                            int64_t m, int64_t p, float rate, int32_t threads, float *out) {                        \
        of_integers(product, rows, columns, scale, m, p, Formula{rate}, threads, out);                              \
    }                                                                                                               \
    void name##_of_floats(float *values, const float *rows, const float *columns, int64_t m, int64_t p, float rate, \
                          int32_t threads) {                                                                        \
        of_floats(values, rows, columns, m, p, Formula{rate}, threads);                                             \
    }

FORMULA(distances, Distances)
FORMULA(gaussian, Gaussian)
FORMULA(laplacian, Laplacian)
FORMULA(matern32, Matern32)
FORMULA(matern52, Matern52)

// out = (sums + out / 2^8) rows_i columns_j, where sums are the products of the digits of one order and out holds those
// of the orders below it, or nothing (first != 0); without rows nothing is scaled. See kl/rows/digits.py.
void add_digits(const int32_t *sums, const float *rows, const float *columns, int64_t m, int64_t p, int32_t first,
                int32_t threads, float *out) {
    constexpr float BELOW = 0.00390625f;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < m; i++) {
        const int32_t *sum = sums + i * p;
        float *value = out + i * p;
        if (first) {
#pragma omp simd
            for (int64_t j = 0; j < p; j++) value[j] = (float)sum[j];
        } else if (rows) {
            const float row = rows[i];
#pragma omp simd
            for (int64_t j = 0; j < p; j++) value[j] = std::fma(value[j], BELOW, (float)sum[j]) * (row * columns[j]);
        } else {
#pragma omp simd
            for (int64_t j = 0; j < p; j++) value[j] = std::fma(value[j], BELOW, (float)sum[j]);
        }
    }
}

// out = sum_k (x_ik - z_kj)^2 for few features d; x is (m, d), z is (d, p).
void distances_of_few(const float *x, const float *z, int64_t m, int64_t p, int64_t d, int32_t threads, float *out) {
    constexpr int64_t CHUNK = 1024;  // sums that stay in the first cache
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < m; i++)
        for (int64_t first = 0; first < p; first += CHUNK) {
            const int64_t count = p - first < CHUNK ? p - first : CHUNK;
            float sums[CHUNK] = {};
            for (int64_t k = 0; k < d; k++) {
                const float value = x[i * d + k];
                const float *column = z + k * p + first;
#pragma omp simd
                for (int64_t j = 0; j < count; j++) {
                    const float difference = value - column[j];
                    sums[j] = std::fma(difference, difference, sums[j]);
                }
            }
            memcpy(out + i * p + first, sums, count * sizeof(float));
        }
}

// From inner products to the neural tangent kernel (tangent != 0) or the NNGP kernel of ReLU networks; see
// kl/kernels/relu.py.
// The square of the bias, and the value of zero rows, are rounded once, as torch does: then the diagonal is the same.
void relu(float *values, const float *rows, const float *columns, int64_t m, int64_t p, int32_t depth, int32_t tangent,
          double exact_sq_bias, int32_t threads) {
    constexpr int64_t CHUNK = 256;  // values whose state stays in the first cache from layer to layer
    constexpr float OVER_PI = 0.318309886f, LEAST = 1.17549435e-38f;
    const float sq_bias = (float)exact_sq_bias, of_zero = (float)(exact_sq_bias * (2.0 - std::ldexp(1.0, 1 - depth)));
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < m; i++) {
        const float row = rows[i];
        for (int64_t first = 0; first < p; first += CHUNK) {
            const int64_t count = p - first < CHUNK ? p - first : CHUNK;
            const float *column = columns + first;
            float *value = values + i * p + first;
            float norms[CHUNK], v[CHUNK];
#pragma omp simd
            for (int64_t j = 0; j < count; j++) {
                norms[j] = std::sqrt(row * column[j]);
                const float u = 1.0f - value[j] / (norms[j] < LEAST ? LEAST : norms[j]);
                v[j] = u < 0.0f ? 0.0f : (u > 2.0f ? 2.0f : u);
                if (tangent) value[j] += sq_bias;
            }
            for (int32_t layer = 1; layer < depth; layer++)
#pragma omp simd
                for (int64_t j = 0; j < count; j++) {
                    const float sine = std::sqrt(v[j] * (2.0f - v[j])), theta = angle_of(v[j]);
                    const float next = std::fma(std::fma(theta, 1.0f - v[j], -sine), OVER_PI, v[j]);
                    v[j] = next < 0.0f ? 0.0f : next;
                    const float covariance = norms[j] * (1.0f - v[j]);
                    const float kept = std::fma(value[j], 1.0f - theta * OVER_PI, covariance) + sq_bias;
                    value[j] = tangent ? kept : covariance;
                }
            if (tangent && sq_bias > 0.0f && depth > 1)
                for (int64_t j = 0; j < count; j++)
                    if (norms[j] == 0.0f) value[j] = of_zero;
        }
    }
}
}
