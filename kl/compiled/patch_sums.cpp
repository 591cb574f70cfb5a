// Responses of patches to a dictionary, encoded and added over cells without leaving the processor's registers.
//
// For each image, entry k of the dictionary and term t:  sum over p in a cell of clamp(r_pk, low_t, high_t), where the
// response is r_pk = z_pk, or z_pk / 128 rounded to the nearest whole number (to the even one of two), and
// z_pk = bias_k + <u_p, D_k>. All numbers are whole, so the sums are exact and the same for every processor.
//
// Positions come in runs that belong to the same cells. The sums of a run stay in registers.

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "vectors.h"

constexpr int PATCHES = 6;  // a block of products has so many positions times COLUMNS entries

// dot adds, in each lane, the products of the GROUP values that 32 bits hold. With 8 bits the left values have no sign:
// they are u + 128, and the bias makes up for it.
#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
typedef uint8_t Left;
typedef int8_t Right;
static inline Lanes dot(Lanes sum, Lanes left, Lanes right) {
    return (Lanes)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)left, (__m512i)right);
}
#elif defined(__AVXVNNI__) && !defined(__AVX512BW__)
typedef uint8_t Left;
typedef int8_t Right;
static inline Lanes dot(Lanes sum, Lanes left, Lanes right) {
    return (Lanes)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)left, (__m256i)right);
}
#elif defined(__AVX512BW__)
typedef int16_t Left, Right;
static inline Lanes dot(Lanes sum, Lanes left, Lanes right) {
    return sum + (Lanes)_mm512_madd_epi16((__m512i)left, (__m512i)right);
}
#elif defined(__AVX2__)
typedef int16_t Left, Right;
static inline Lanes dot(Lanes sum, Lanes left, Lanes right) {
    return sum + (Lanes)_mm256_madd_epi16((__m256i)left, (__m256i)right);
}
#else
typedef int32_t Left, Right;
static inline Lanes dot(Lanes sum, Lanes left, Lanes right) { return sum + left * right; }
#endif
constexpr int GROUP = 4 / sizeof(Left);

// A float of this size keeps multiples of 128 alone: adding it rounds to them, and its bits count them.
constexpr float TO_STEPS = 1.5f * (1 << 30);
constexpr int32_t ITS_BITS = 0x4EC00000;

static inline Lanes all(int32_t value) { return value - Lanes{}; }
static inline Lanes at(const void *address) { return *(const LooseLanes *)address; }

struct Clamps {
    int32_t low[2], high[2];
};

// Adds the clamped responses of P positions to `sums`, which holds VECTORS vectors for each of the T terms.
template <int P, int T, bool ROUND>
static inline void add_block(const Left *units, const int64_t *order, int64_t groups, const Right *right,
                             const int32_t *bias, const Clamps &clamps, Lanes *sums) {
    const Left *unit[P];
    Lanes z[P][VECTORS];
    UNROLL
    for (int p = 0; p < P; p++) {
        unit[p] = units + order[p] * groups * GROUP;
        UNROLL
        for (int v = 0; v < VECTORS; v++) z[p][v] = at(bias + v * LANES);
    }
    for (int64_t g = 0; g < groups; g++) {
        Lanes entries[VECTORS];
        UNROLL
        for (int v = 0; v < VECTORS; v++) entries[v] = at(right + (g * COLUMNS + v * LANES) * GROUP);
        UNROLL
        for (int p = 0; p < P; p++) {
            int32_t values;
            memcpy(&values, unit[p] + g * GROUP, sizeof values);
            UNROLL
            for (int v = 0; v < VECTORS; v++) z[p][v] = dot(z[p][v], all(values), entries[v]);
        }
    }
    UNROLL
    for (int v = 0; v < VECTORS; v++) {
        Lanes sum[T];
        UNROLL
        for (int t = 0; t < T; t++) sum[t] = sums[t * VECTORS + v];
        UNROLL
        for (int p = 0; p < P; p++) {
            Lanes r = z[p][v];
            if (ROUND) r = (Lanes)(__builtin_convertvector(r, Floats) + TO_STEPS);
            UNROLL
            for (int t = 0; t < T; t++) {
                Lanes low = all(clamps.low[t]), high = all(clamps.high[t]);
                Lanes above = r < low ? low : r;
                sum[t] += above > high ? high : above;
            }
        }
        UNROLL
        for (int t = 0; t < T; t++) sums[t * VECTORS + v] = sum[t];
    }
}

struct Run {
    const Left *units;
    const int64_t *order;
    int64_t groups;
    const Right *right;
    const int32_t *bias;
    const Clamps &clamps;
    Lanes *sums;

    template <int P, int T, bool ROUND>
    inline void add(int64_t place) const {
        add_block<P, T, ROUND>(units, order + place, groups, right, bias, clamps, sums);
    }
};

template <int T, bool ROUND>
static void cell_sums(const Left *units, int64_t n, int64_t positions, int64_t groups, const Right *right,
                      const int32_t *bias, int64_t m, Clamps clamps, const int64_t *order, const int64_t *ends,
                      int64_t runs, const uint8_t *members, int64_t cells, int32_t threads, int32_t *out) {
    const int32_t base = ROUND ? ITS_BITS : 0;
    for (int t = 0; t < T; t++) clamps.low[t] += base, clamps.high[t] += base;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < n; i++)
        for (int64_t column = 0; column < m; column += COLUMNS) {
            int64_t place = 0;
            for (int64_t r = 0; r < runs; r++) {
                Lanes sums[T * VECTORS] = {};
                const Run run{units + i * positions * groups * GROUP,
                              order,
                              groups,
                              right + column * groups * GROUP,
                              bias + column,
                              clamps,
                              sums};
                const int32_t length = ends[r] - place;
                for (; place + PATCHES <= ends[r]; place += PATCHES) run.add<PATCHES, T, ROUND>(place);
                for (; place + 2 <= ends[r]; place += 2) run.add<2, T, ROUND>(place);
                if (place < ends[r]) run.add<1, T, ROUND>(place++);
                for (int t = 0; t < T; t++)
                    for (int64_t cell = 0; cell < cells; cell++)
                        if (members[cell * runs + r])
                            for (int v = 0; v < VECTORS; v++) {
                                int32_t *sum = out + ((t * cells + cell) * n + i) * m + column + v * LANES;
                                *(LooseLanes *)sum = at(sum) + sums[t * VECTORS + v] - all(length * base);
                            }
            }
        }
}

extern "C" {

// Raised with every change of a function's arguments or meaning; kl/compiled/__init__.py has the same number.
int32_t version() { return 7; }

// How the operands are laid out: products that 32 bits hold, and the entries of a block.
int32_t patch_group() { return GROUP; }
int32_t patch_columns() { return COLUMNS; }

// units: (n, positions, groups, GROUP); right: (m / COLUMNS, groups, COLUMNS, GROUP); bias: (m,), m a multiple of
// COLUMNS. order: positions in runs; ends: where each of the runs ends in it; members: (cells, runs), 1 where a run is
// in a cell.
// out: (terms, cells, n, m), to which the sums are added. Threads share the images.
void patch_sums(const void *units, int64_t n, int64_t positions, int64_t groups, const void *right, const int32_t *bias,
                int64_t m, int32_t terms, int32_t round, const int32_t *low, const int32_t *high, const int64_t *order,
                const int64_t *ends, int64_t runs, const uint8_t *members, int64_t cells, int32_t threads,
                int32_t *out) {
    Clamps clamps{};
    for (int t = 0; t < terms; t++) clamps.low[t] = low[t], clamps.high[t] = high[t];
    const auto sums = terms == 2 ? (round ? cell_sums<2, true> : cell_sums<2, false>)
                                 : (round ? cell_sums<1, true> : cell_sums<1, false>);
    sums((const Left *)units, n, positions, groups, (const Right *)right, bias, m, clamps, order, ends, runs, members,
         cells, threads, out);
}
}
