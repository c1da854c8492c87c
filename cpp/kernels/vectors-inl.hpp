// Vectors of the target's width, through the compilers' vector extensions: the same source gives
// SSE2, AVX2, AVX-512 and NEON. Included inside a target's translation unit only.
//
// No standard-library templates here: their inline code, compiled under wide flags, could be the
// copy that the linker keeps for everybody.
#pragma once

#include <stddef.h>
#include <stdint.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "mlsd/dtypes.hpp"

namespace mlsd {
namespace MLSD_TARGET_NAMESPACE {

constexpr size_t W = MLSD_VECTOR_BYTES;
#define MLSD_VECTOR(type, name) typedef type name __attribute__((vector_size(MLSD_VECTOR_BYTES)))
MLSD_VECTOR(float, vf);
MLSD_VECTOR(double, vd);
MLSD_VECTOR(int32_t, vi32);
MLSD_VECTOR(uint32_t, vu32);
MLSD_VECTOR(int64_t, vi64);
MLSD_VECTOR(uint64_t, vu64);
MLSD_VECTOR(uint16_t, vu16);
MLSD_VECTOR(int16_t, vi16);
MLSD_VECTOR(uint8_t, vu8);
#undef MLSD_VECTOR
typedef float vf_half __attribute__((vector_size(MLSD_VECTOR_BYTES / 2)));
typedef uint16_t vu16_half __attribute__((vector_size(MLSD_VECTOR_BYTES / 2)));

// Any address: a plain load through memcpy, which compilers turn into one unaligned load.
template <typename V>
inline V load(const void *p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <typename To, typename From>
inline To bits_as(From v) {
  static_assert(sizeof(To) == sizeof(From), "a reinterpretation keeps the size");
  To out;
  __builtin_memcpy(&out, &v, sizeof out);
  return out;
}
// a < b ? a : b is what the x86 instructions compute, but compilers make a compare and a blend of
// it.
template <typename V>
inline V minimum(V a, V b) {
  return a < b ? a : b;
}
template <typename V>
inline V maximum(V a, V b) {
  return a > b ? a : b;
}
#if defined(__AVX512F__)
inline vf minimum(vf a, vf b) { return (vf)_mm512_maskz_min_ps(0xffff, (__m512)a, (__m512)b); }
inline vf maximum(vf a, vf b) { return (vf)_mm512_maskz_max_ps(0xffff, (__m512)a, (__m512)b); }
inline vd minimum(vd a, vd b) { return (vd)_mm512_maskz_min_pd(0xff, (__m512d)a, (__m512d)b); }
inline vd maximum(vd a, vd b) { return (vd)_mm512_maskz_max_pd(0xff, (__m512d)a, (__m512d)b); }
inline vu32 minimum(vu32 a, vu32 b) {
  return (vu32)_mm512_maskz_min_epu32(0xffff, (__m512i)a, (__m512i)b);
}
inline vu64 minimum(vu64 a, vu64 b) {
  return (vu64)_mm512_maskz_min_epu64(0xff, (__m512i)a, (__m512i)b);
}
#elif defined(__AVX2__)
inline vf minimum(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
inline vf maximum(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
inline vd minimum(vd a, vd b) { return (vd)_mm256_min_pd((__m256d)a, (__m256d)b); }
inline vd maximum(vd a, vd b) { return (vd)_mm256_max_pd((__m256d)a, (__m256d)b); }
inline vu32 minimum(vu32 a, vu32 b) { return (vu32)_mm256_min_epu32((__m256i)a, (__m256i)b); }
// Of magnitudes: there is no instruction for integers, and doubles of no sign are in the same
// order. `a` must not be a NaN; where `b` is one, the result is `a`.
inline vu64 minimum(vu64 a, vu64 b) { return (vu64)_mm256_min_pd((__m256d)b, (__m256d)a); }
#endif
template <typename V>
constexpr size_t lanes = sizeof(V) / sizeof(V{}[0]);

inline vd low_doubles(vf v) {
  vf_half half;
  __builtin_memcpy(&half, &v, sizeof half);
  return __builtin_convertvector(half, vd);
}
inline vd high_doubles(vf v) {
  vf_half half;
  __builtin_memcpy(&half, reinterpret_cast<const char *>(&v) + sizeof half, sizeof half);
  return __builtin_convertvector(half, vd);
}

inline float half_to_float(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const uint32_t magnitude = h & 0x7fffu;
  uint32_t bits;
  if (magnitude >= 0x7c00u) {
    bits = sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13);
  } else {
    // Scaling by 2^112 moves the exponent and makes subnormals normal.
    uint32_t shifted = magnitude << 13;
    float value;
    __builtin_memcpy(&value, &shifted, 4);
    value *= 0x1p112f;
    __builtin_memcpy(&bits, &value, 4);
    bits |= sign;
  }
  float out;
  __builtin_memcpy(&out, &bits, 4);
  return out;
}

// One format each: how its elements become vectors of floats or doubles. `span` gives the address
// of elements [i, i + n), n <= kShort, converted into `scratch` where the format needs a table;
// they lie `step` bytes apart there, and `vector` reads lanes<V> of them. `pair` reads twice as
// many, in any order: for what does not ask which element is where. `in_place`: `span` converts
// nothing, and spans may be longer.
constexpr size_t kShort = 2048;

struct F64 {
  using V = vd;
  static constexpr size_t size = 8, step = 8;
  static constexpr bool in_place = true;
  static constexpr double min_normal = 0x1p-1022;
  static const char *span(const char *p, size_t i, size_t, char *) { return p + 8 * i; }
  static V vector(const char *p) { return load<vd>(p); }
  static void pair(const char *p, V *a, V *b) {
    *a = vector(p);
    *b = vector(p + W);
  }
};
struct F32 {
  using V = vf;
  static constexpr size_t size = 4, step = 4;
  static constexpr bool in_place = true;
  static constexpr double min_normal = 0x1p-126;
  static const char *span(const char *p, size_t i, size_t, char *) { return p + 4 * i; }
  static V vector(const char *p) { return load<vf>(p); }
  static void pair(const char *p, V *a, V *b) {
    *a = vector(p);
    *b = vector(p + W);
  }
};
struct BF16 {
  using V = vf;
  static constexpr size_t size = 2, step = 2;
  static constexpr bool in_place = true;
  static constexpr double min_normal = 0x1p-126;
  static constexpr int16_t normal_bits = 0x0080;
  static constexpr int16_t small_bits = 0x7f80;  // not one of them set: zero or subnormal
  static constexpr bool many_small = false;      // whether such values are common
  static const char *span(const char *p, size_t i, size_t, char *) { return p + 2 * i; }
  static V vector(const char *p) {
    return bits_as<vf>(__builtin_convertvector(load<vu16_half>(p), vu32) << 16);
  }
  static void pair(const char *p, V *a, V *b) {
    const vu32 both = load<vu32>(p);
    *a = bits_as<vf>(both << 16);
    *b = bits_as<vf>(both & (vu32{} + 0xffff0000u));
  }
};
struct F16 {
  using V = vf;
  static constexpr size_t size = 2, step = 2;
  static constexpr bool in_place = true;
  static constexpr double min_normal = 0x1p-14;
  static constexpr int16_t normal_bits = 0x0400;
  static constexpr int16_t small_bits = 0x7c00;
  static constexpr bool many_small = true;  // gradients reach down to them
  static const char *span(const char *p, size_t i, size_t, char *) { return p + 2 * i; }
  static V vector(const char *p) {
#if defined(__AVX512F__)
    return reinterpret_cast<vf>(_mm512_maskz_cvtph_ps(0xffff, load<__m256i>(p)));
#elif defined(__F16C__)
    return reinterpret_cast<vf>(_mm256_cvtph_ps(load<__m128i>(p)));
#else
    vf out = {};
    for (size_t i = 0; i < lanes<vf>; ++i) {
      uint16_t h;
      __builtin_memcpy(&h, p + 2 * i, 2);
      out[i] = half_to_float(h);
    }
    return out;
#endif
  }
  static void pair(const char *p, V *a, V *b) {
    *a = vector(p);
    *b = vector(p + W / 2);
  }
};

// The value of an 8-bit float that is no special code.
inline float minifloat(uint32_t code, int exponent_bits, int mantissa_bits, int bias) {
  const uint32_t mantissa = code & ((1u << mantissa_bits) - 1);
  const int exponent = static_cast<int>((code >> mantissa_bits) & ((1u << exponent_bits) - 1));
  float value = static_cast<float>(mantissa) / static_cast<float>(1u << mantissa_bits);
  int power = exponent - bias;
  if (exponent == 0)
    ++power;
  else
    value += 1.0f;
  for (; power > 0; --power) value *= 2.0f;
  for (; power < 0; ++power) value *= 0.5f;
  return (code & 0x80u) != 0 ? -value : value;
}

template <Dtype D>
inline float decode_f8(uint32_t code) {
  const float nan = __builtin_nanf(""), infinity = __builtin_inff();
  if constexpr (D == Dtype::f8_e4m3fn)
    return (code & 0x7fu) == 0x7fu ? nan : minifloat(code, 4, 3, 7);
  if constexpr (D == Dtype::f8_e5m2) {
    const uint32_t magnitude = code & 0x7fu;
    if (magnitude > 0x7cu) return nan;
    if (magnitude == 0x7cu) return (code & 0x80u) != 0 ? -infinity : infinity;
    return minifloat(code, 5, 2, 15);
  }
  if constexpr (D == Dtype::f8_e4m3fnuz) return code == 0x80u ? nan : minifloat(code, 4, 3, 8);
  if constexpr (D == Dtype::f8_e5m2fnuz) return code == 0x80u ? nan : minifloat(code, 5, 2, 16);
  if constexpr (D == Dtype::f8_e8m0) {
    if (code == 0xffu) return nan;
    const uint32_t bits = code == 0 ? 0x00400000u : code << 23;  // 2^(code - 127)
    float out;
    __builtin_memcpy(&out, &bits, 4);
    return out;
  }
  return nan;
}

// Every 8-bit float is a bfloat16 too: spans are converted, and are bfloat16 from then on.
template <Dtype D>
struct Float8 {
  using V = vf;
  static constexpr size_t size = 1, step = 2;
  static constexpr bool in_place = false;
  static constexpr double min_normal = D == Dtype::f8_e4m3fn     ? 0x1p-6
                                       : D == Dtype::f8_e5m2     ? 0x1p-14
                                       : D == Dtype::f8_e4m3fnuz ? 0x1p-7
                                       : D == Dtype::f8_e5m2fnuz ? 0x1p-15
                                                                 : 0.0;
  // Of min_normal as bfloat16; 0 where the format has no subnormals.
  static constexpr int16_t normal_bits = D == Dtype::f8_e4m3fn     ? (127 - 6) << 7
                                         : D == Dtype::f8_e5m2     ? (127 - 14) << 7
                                         : D == Dtype::f8_e4m3fnuz ? (127 - 7) << 7
                                         : D == Dtype::f8_e5m2fnuz ? (127 - 15) << 7
                                                                   : 0;
  struct Table {
    uint16_t value[256];
    uint8_t low[256], high[256];  // the halves of `value`
    Table() {
      for (uint32_t code = 0; code < 256; ++code) {
        const float decoded = decode_f8<D>(code);
        uint32_t bits;
        __builtin_memcpy(&bits, &decoded, 4);
        value[code] = static_cast<uint16_t>(bits >> 16);
        low[code] = static_cast<uint8_t>(bits >> 16);
        high[code] = static_cast<uint8_t>(bits >> 24);
      }
    }
  };
  static const Table &table() {
    static const Table built;
    return built;
  }
  static const char *span(const char *p, size_t i, size_t n, char *scratch) {
    const Table &table = Float8::table();
    size_t j = 0;
#if defined(__AVX512VBMI__)
    // Two lookups among 128 bytes give each half of the result; all four for all 256 codes.
    const auto at = [](const uint8_t *half, size_t k) { return load<__m512i>(half + 64 * k); };
    const __m512i l0 = at(table.low, 0), l1 = at(table.low, 1), l2 = at(table.low, 2),
                  l3 = at(table.low, 3), h0 = at(table.high, 0), h1 = at(table.high, 1),
                  h2 = at(table.high, 2), h3 = at(table.high, 3);
    // So that unpacking, which works within quarters, leaves the elements in order.
    const __m512i order = _mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0);
    for (; j + 64 <= n; j += 64) {
      __builtin_prefetch(p + i + j + 1024, 0, 3);
      const __m512i x = _mm512_maskz_permutexvar_epi64(0xff, order, load<__m512i>(p + i + j));
      const __mmask64 upper = _mm512_movepi8_mask(x);
      const __m512i low = _mm512_mask_blend_epi8(upper, _mm512_permutex2var_epi8(l0, x, l1),
                                                 _mm512_permutex2var_epi8(l2, x, l3));
      const __m512i high = _mm512_mask_blend_epi8(upper, _mm512_permutex2var_epi8(h0, x, h1),
                                                  _mm512_permutex2var_epi8(h2, x, h3));
      const __m512i first = _mm512_unpacklo_epi8(low, high);
      const __m512i second = _mm512_unpackhi_epi8(low, high);
      __builtin_memcpy(scratch + 2 * j, &first, 64);
      __builtin_memcpy(scratch + 2 * j + 64, &second, 64);
    }
#endif
    for (; j < n; ++j)
      __builtin_memcpy(scratch + 2 * j, &table.value[static_cast<uint8_t>(p[i + j])], 2);
    return scratch;
  }
  static V vector(const char *p) { return BF16::vector(p); }
  static void pair(const char *p, V *a, V *b) { BF16::pair(p, a, b); }
};

// Integers: exact as floats up to 16 bits, as doubles (rounded beyond 2^53) above.
template <typename T>
struct Integer {
  using V = vd;
  static constexpr size_t size = sizeof(T), step = 8;
  static constexpr bool in_place = false;
  static constexpr double min_normal = 0.0;
  static const char *span(const char *p, size_t i, size_t n, char *scratch) {
    double *out = reinterpret_cast<double *>(scratch);
    for (size_t j = 0; j < n; ++j) {
      T value;
      __builtin_memcpy(&value, p + (i + j) * sizeof(T), sizeof(T));
      out[j] = static_cast<double>(value);
    }
    return scratch;
  }
  static V vector(const char *p) { return load<vd>(p); }
  static void pair(const char *p, V *a, V *b) {
    *a = vector(p);
    *b = vector(p + W);
  }
};

}  // namespace MLSD_TARGET_NAMESPACE
}  // namespace mlsd
