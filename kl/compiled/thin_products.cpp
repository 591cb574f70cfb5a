// Products of long rows with a few columns of weights, in one pass over these rows, which are read where they lie.
//
// A block of sums stays in registers: a few outputs times VECTORS vectors of columns, or times VECTORS rows.

#include "thin_products.h"

#include <algorithm>
#include <cstdint>

#include "vectors.h"

static inline Floats at(const float *address) { return *(const LooseFloats *)address; }

// Calls `work` for `count` outputs from `first` on, with the count known to the compiler.
template <int K, typename Work>
static inline void call(const Work &work, int64_t first, int64_t count) {
    if constexpr (K > 1) {
        if (count < K) return call<K - 1>(work, first, count);
    }
    work.template part<K>(first);
}

// Calls `work` for c outputs, in parts as even as possible.
template <typename Work>
static inline void in_parts(int64_t c, const Work &work) {
    const int64_t parts = (c + Work::MOST - 1) / Work::MOST;
    for (int64_t p = 0; p < parts; p++) {
        const int64_t first = c * p / parts;
        call<Work::MOST>(work, first, c * (p + 1) / parts - first);
    }
}

// sums_kj += sum over rows r of w_rk row_r[j], for the columns j below `width`; `next` are rows to fetch.
struct AddRows {
    static constexpr int MOST = VECTORS > 2 ? 12 : 6;  // outputs of a part; more would not fit into the registers

    const float *const *rows, *const *next;
    int64_t count, width;
    const float *w;
    int64_t c;
    float *sums;
    int64_t stride;  // of the sums

    template <int K, int V>
    inline void tile(const float *weights, int64_t j, float *place) const {
        Floats sum[K][V];
        UNROLL
        for (int k = 0; k < K; k++) UNROLL
        for (int v = 0; v < V; v++) sum[k][v] = at(place + k * stride + v * LANES);
        for (int64_t r = 0; r < count; r++) {
            Floats values[V];
            UNROLL
            for (int v = 0; v < V; v++) values[v] = at(rows[r] + j + v * LANES);
            UNROLL
            for (int k = 0; k < K; k++) UNROLL
            for (int v = 0; v < V; v++) sum[k][v] += weights[r * c + k] * values[v];
        }
        UNROLL
        for (int k = 0; k < K; k++) UNROLL
        for (int v = 0; v < V; v++) *(LooseFloats *)(place + k * stride + v * LANES) = sum[k][v];
    }

    template <int K>
    void part(int64_t output) const {
        const float *weights = w + output;
        float *place = sums + output * stride;
        int64_t j = 0;
        constexpr int V = K > 6 ? VECTORS / 2 : VECTORS;
        for (; j + V * LANES <= width; j += V * LANES) {
            if (next && output == 0)
                for (int64_t r = 0; r < count; r++)
                    for (int64_t k = 0; k < V * LANES; k += CACHE_LINE) __builtin_prefetch(next[r] + j + k);
            tile<K, V>(weights, j, place + j);
        }
        for (; j + LANES <= width; j += LANES) tile<K, 1>(weights, j, place + j);
        for (; j < width; j++)
            for (int k = 0; k < K; k++)
                for (int64_t r = 0; r < count; r++) place[k * stride + j] += weights[r * c + k] * rows[r][j];
    }
};

// sums_kr += sum over j of row_r[j] v_kj; the VECTORS rows after these are rows to fetch.
struct DotRows {
    static constexpr int MOST = 6;

    const float *const *rows;
    int64_t count, n;
    const float *v;
    float *out;
    int64_t stride;

    template <int K, int R>
    inline void tile(int64_t first, int64_t output) const {
        const float *weights = v + output * n;
        Floats sum[K][R] = {};
        int64_t j = 0;
        for (; j + LANES <= n; j += LANES) {
            Floats values[R];
            UNROLL
            for (int r = 0; r < R; r++) values[r] = at(rows[first + r] + j);
            if (R > 1 && output == 0) {
                UNROLL
                for (int r = 0; r < R; r++) __builtin_prefetch(rows[first + R + r] + j);
            }
            UNROLL
            for (int k = 0; k < K; k++) {
                const Floats weight = at(weights + k * n + j);
                UNROLL
                for (int r = 0; r < R; r++) sum[k][r] += weight * values[r];
            }
        }
        UNROLL
        for (int k = 0; k < K; k++) UNROLL
        for (int r = 0; r < R; r++) {
            float total = 0.0f;
            for (int lane = 0; lane < LANES; lane++) total += sum[k][r][lane];
            for (int64_t i = j; i < n; i++) total += weights[k * n + i] * rows[first + r][i];
            out[(output + k) * stride + first + r] += total;
        }
    }

    template <int K>
    void part(int64_t output) const {
        int64_t r = 0;
        for (; r + VECTORS <= count; r += VECTORS) tile<K, VECTORS>(r, output);
        for (; r < count; r++) tile<K, 1>(r, output);
    }
};

// `add_rows` for floats or doubles. Threads share the columns, so that the sums are the same for any number of threads.
// Sums of 512 rows are added up, which loses less than one sum of all rows.
template <typename Out>
static void add_rows_to(const float *matrix, int64_t stride, const int64_t *positions, int64_t m, int64_t n,
                        const float *w, int64_t c, int32_t threads, Out *out) {
    constexpr int64_t ROWS = 8, LONG = 1024;  // 32 KB of K, which stay in the first cache for all c outputs
    constexpr int64_t SUMMED = 512, MOST = 32;
    const int64_t share = (n + threads - 1) / threads;  // of few columns, too, each thread has its share
    const int64_t chunk = std::clamp<int64_t>((share + COLUMNS - 1) / COLUMNS * COLUMNS, COLUMNS, LONG);
    const int64_t apart = chunk + CACHE_LINE;  // sums of outputs a page apart would compete for places in the cache
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t first = 0; first < n; first += chunk) {
        const int64_t width = std::min(chunk, n - first);
        const float *now[ROWS], *next[ROWS];
        float sums[MOST * (LONG + CACHE_LINE)];
        const auto find = [=](int64_t i, const float **rows) {
            for (int64_t r = 0; r < std::min(ROWS, m - i); r++)
                rows[r] = matrix + (positions ? positions[i + r] : i + r) * stride + first;
        };
        find(0, now);
        for (int64_t start = 0; start < m; start += SUMMED) {
            const int64_t end = std::min(m, start + SUMMED);
            std::fill(sums, sums + c * apart, 0.0f);
            for (int64_t i = start; i < end; i += ROWS) {
                const bool fetch = i + 2 * ROWS <= m;
                find(i + ROWS, next);
                in_parts(c,
                         AddRows{now, fetch ? next : nullptr, std::min(ROWS, m - i), width, w + i * c, c, sums, apart});
                std::copy(next, next + ROWS, now);
            }
            for (int64_t k = 0; k < c; k++)
                for (int64_t j = 0; j < width; j++) out[k * n + first + j] += sums[k * apart + j];
        }
    }
}

extern "C" {

// Whether all m positions are rows of a matrix of k rows; the other functions do not look.
int32_t are_rows(const int64_t *positions, int64_t m, int64_t k) {
    return std::all_of(positions, positions + m, [k](int64_t row) { return 0 <= row && row < k; });
}

// out_kj += sum over i of w_ik K[positions_i, j]; K has n columns and `stride` values from row to row, w is (m, c) and
// out is (c, n), c at most 32; without positions all m rows of K.
void add_rows(const float *matrix, int64_t stride, const int64_t *positions, int64_t m, int64_t n, const float *w,
              int64_t c, int32_t threads, float *out) {
    add_rows_to(matrix, stride, positions, m, n, w, c, threads, out);
}

// The same for an out of doubles.
void add_rows_to_doubles(const float *matrix, int64_t stride, const int64_t *positions, int64_t m, int64_t n,
                         const float *w, int64_t c, int32_t threads, double *out) {
    add_rows_to(matrix, stride, positions, m, n, w, c, threads, out);
}

// out_ki += sum over j of K[positions_i, j] v_kj; v is (c, n), and out is (c, m) with `out_stride` values from row to row.
// Threads share the rows of K.
void dot_rows(const float *matrix, int64_t stride, const int64_t *positions, int64_t m, int64_t n, const float *v,
              int64_t c, int32_t threads, float *out, int64_t out_stride) {
    constexpr int64_t ROWS = 4 * VECTORS;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < m; i += ROWS) {
        const int64_t count = std::min(ROWS, m - i);
        const float *rows[ROWS + VECTORS];
        for (int64_t r = 0; r < ROWS + VECTORS; r++) {
            const int64_t at = std::min(i + r, m - 1);
            rows[r] = matrix + (positions ? positions[at] : at) * stride;
        }
        in_parts(c, DotRows{rows, count, n, v, out + i, out_stride});
    }
}
}
