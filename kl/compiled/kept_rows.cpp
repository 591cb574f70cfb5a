// A few rows of a kept kernel matrix times weights, in one pass over these rows, which are read where they lie.

#include <cstdint>

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

extern "C" {

// out_kj += sum over i of w_ik K[positions_i, j]; K has n columns and `stride` values from row to row, w is (m, c) and out is
// (c, n). Threads share the columns, so that the sums are the same for any number of threads.
void add_rows(
    const float *matrix, int64_t stride, const int64_t *positions, int64_t m, int64_t n, const float *w, int64_t c, int32_t threads, float *out) {
    constexpr int64_t CHUNK = 1024, ROWS = 8;  // 32 KB of K, which stay in the first cache for all c outputs
    #pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t first = 0; first < n; first += CHUNK) {
        const int64_t count = least(CHUNK, n - first);
        int64_t i = 0;
        for (; i + ROWS <= m; i += ROWS) {
            const float *row[ROWS];
            for (int64_t r = 0; r < ROWS; r++) row[r] = matrix + positions[i + r] * stride + first;
            for (int64_t k = 0; k < c; k++) {
                float *sum = out + k * n + first, weight[ROWS];
                for (int64_t r = 0; r < ROWS; r++) weight[r] = w[(i + r) * c + k];
                #pragma omp simd
                for (int64_t j = 0; j < count; j++)
                    sum[j] += ((weight[0] * row[0][j] + weight[1] * row[1][j]) + (weight[2] * row[2][j] + weight[3] * row[3][j])) +
                              ((weight[4] * row[4][j] + weight[5] * row[5][j]) + (weight[6] * row[6][j] + weight[7] * row[7][j]));
            }
        }
        for (; i < m; i++)
            for (int64_t k = 0; k < c; k++) {
                const float weight = w[i * c + k], *row = matrix + positions[i] * stride + first;
                float *sum = out + k * n + first;
                #pragma omp simd
                for (int64_t j = 0; j < count; j++) sum[j] += weight * row[j];
            }
    }
}

// out_ik = sum over j of K[positions_i, j] v_kj; v is (c, n) and out is (m, c). Threads share the rows.
void dot_rows(
    const float *matrix, int64_t stride, const int64_t *positions, int64_t m, int64_t n, const float *v, int64_t c, int32_t threads, float *out) {
    #pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < m; i++) {
        const float *row = matrix + positions[i] * stride;
        int64_t k = 0;
        for (; k + 4 <= c; k += 4) {
            const float *a = v + k * n, *b = a + n, *d = b + n, *e = d + n;
            float first = 0.0f, second = 0.0f, third = 0.0f, fourth = 0.0f;
            #pragma omp simd reduction(+ : first, second, third, fourth)
            for (int64_t j = 0; j < n; j++) {
                first += row[j] * a[j];
                second += row[j] * b[j];
                third += row[j] * d[j];
                fourth += row[j] * e[j];
            }
            float *sums = out + i * c + k;
            sums[0] = first, sums[1] = second, sums[2] = third, sums[3] = fourth;
        }
        for (; k < c; k++) {
            const float *a = v + k * n;
            float sum = 0.0f;
            #pragma omp simd reduction(+ : sum)
            for (int64_t j = 0; j < n; j++) sum += row[j] * a[j];
            out[i * c + k] = sum;
        }
    }
}
}
