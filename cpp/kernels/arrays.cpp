#include "kernels/arrays-inl.hpp"
#include "kernels/ranges-inl.hpp"

namespace mlsd {
namespace MLSD_TARGET_NAMESPACE {
namespace {

// Calls f with the format of `dtype`.
template <typename Result, typename Function>
Result with_format(Dtype dtype, Function f) {
  switch (dtype) {
    case Dtype::f64:
      return f(F64{});
    case Dtype::f32:
      return f(F32{});
    case Dtype::f16:
      return f(F16{});
    case Dtype::bf16:
      return f(BF16{});
    case Dtype::f8_e4m3fn:
      return f(Float8<Dtype::f8_e4m3fn>{});
    case Dtype::f8_e5m2:
      return f(Float8<Dtype::f8_e5m2>{});
    case Dtype::f8_e4m3fnuz:
      return f(Float8<Dtype::f8_e4m3fnuz>{});
    case Dtype::f8_e5m2fnuz:
      return f(Float8<Dtype::f8_e5m2fnuz>{});
    case Dtype::f8_e8m0:
      return f(Float8<Dtype::f8_e8m0>{});
    case Dtype::i8:
      return f(Integer<int8_t>{});
    case Dtype::i16:
      return f(Integer<int16_t>{});
    case Dtype::i32:
      return f(Integer<int32_t>{});
    case Dtype::i64:
      return f(Integer<int64_t>{});
    case Dtype::u8:
      return f(Integer<uint8_t>{});
    case Dtype::u16:
      return f(Integer<uint16_t>{});
    case Dtype::u32:
      return f(Integer<uint32_t>{});
    case Dtype::u64:
      return f(Integer<uint64_t>{});
  }
  __builtin_unreachable();
}

// The formats with a table: converted span by span, then looked at as bfloat16.
template <typename F>
size_t find_converted(const char *p, size_t n) {
  alignas(64) char scratch[kShort * 8];
  for (size_t i = 0; i < n; i += kShort) {
    const size_t count = smaller(kShort, n - i);
    const size_t at = find_nonfinite<BrainExponent>(F::span(p, i, count, scratch), count);
    if (at != count) return i + at;
  }
  return n;
}

template <typename F>
NonfiniteCounts count_converted(const char *p, size_t n) {
  NonfiniteCounts out;
  alignas(64) char scratch[kShort * 8];
  for (size_t i = 0; i < n; i += kShort) {
    const size_t count = smaller(kShort, n - i);
    const NonfiniteCounts part =
        count_nonfinite<BrainExponent>(F::span(p, i, count, scratch), count);
    out.nan += part.nan;
    out.posinf += part.posinf;
    out.neginf += part.neginf;
  }
  return out;
}

template <typename F>
struct Scan {  // integers: nothing to find
  static size_t first(const char *, size_t n) { return n; }
  static bool any(const char *, size_t) { return false; }
  static NonfiniteCounts count(const char *, size_t) { return {}; }
};
template <typename E>
struct NativeScan {
  static size_t first(const char *p, size_t n) { return find_nonfinite<E>(p, n); }
  static bool any(const char *p, size_t n) { return scan_nonfinite<E>(p, n); }
  static NonfiniteCounts count(const char *p, size_t n) { return count_nonfinite<E>(p, n); }
};
template <>
struct Scan<F64> : NativeScan<DoubleExponent> {};
template <>
struct Scan<F32> : NativeScan<SingleExponent> {};
template <>
struct Scan<F16> : NativeScan<HalfExponent> {};
template <>
struct Scan<BF16> : NativeScan<BrainExponent> {};
// 8-bit floats: whether there is one is asked of the codes; which one, of spans where there is.
template <Dtype D>
struct Scan<Float8<D>> {
  static bool any(const char *p, size_t n) {
    if constexpr (D == Dtype::f8_e4m3fn) return scan_nonfinite<ByteExponent<0x7f>>(p, n);
    if constexpr (D == Dtype::f8_e5m2) return scan_nonfinite<ByteExponent<0x7c>>(p, n);
    if constexpr (D == Dtype::f8_e8m0) return has_code(p, n, 0xff);
    return has_code(p, n, 0x80);
  }
  static size_t first(const char *p, size_t n) {
    for (size_t i = 0; i < n; i += kShort) {
      const size_t count = smaller(kShort, n - i);
      if (any(p + i, count)) return i + find_converted<Float8<D>>(p + i, count);
    }
    return n;
  }
  static NonfiniteCounts count(const char *p, size_t n) {
    NonfiniteCounts out;
    for (size_t i = 0; i < n; i += kShort) {
      const size_t count = smaller(kShort, n - i);
      if (!any(p + i, count)) continue;
      const NonfiniteCounts part = count_converted<Float8<D>>(p + i, count);
      out.nan += part.nan;
      out.posinf += part.posinf;
      out.neginf += part.neginf;
    }
    return out;
  }
};

NonfiniteCounts count_any(const void *data, size_t n, Dtype dtype) {
  return with_format<NonfiniteCounts>(
      dtype, [&](auto f) { return Scan<decltype(f)>::count(static_cast<const char *>(data), n); });
}
bool has_any(const void *data, size_t n, Dtype dtype) {
  return with_format<bool>(
      dtype, [&](auto f) { return Scan<decltype(f)>::any(static_cast<const char *>(data), n); });
}
size_t first_any(const void *data, size_t n, Dtype dtype) {
  return with_format<size_t>(
      dtype, [&](auto f) { return Scan<decltype(f)>::first(static_cast<const char *>(data), n); });
}
ScaledSquares squares_any(const void *data, size_t n, Dtype dtype) {
  return with_format<ScaledSquares>(dtype, [&](auto f) {
    return squares_block<decltype(f)>(static_cast<const char *>(data), n);
  });
}
double abs_any(const void *data, size_t n, Dtype dtype) {
  return with_format<double>(dtype, [&](auto f) {
    const char *p = static_cast<const char *>(data);
    const double fast = sum_block<decltype(f), Magnitude>(p, n);
    if (fast < kInfinity) return fast;
    double sum = 0;  // 32-bit lanes may have overflowed
    each_value<decltype(f)>(p, n, [&](double x) { sum += x < 0 ? -x : x; });
    return sum;
  });
}
double largest_any(const void *data, size_t n, Dtype dtype) {
  return with_format<double>(dtype, [&](auto f) {
    return largest_block<decltype(f)>(static_cast<const char *>(data), n);
  });
}
void stats_any(const void *data, size_t n, Dtype dtype, BlockStats *out) {
  with_format<int>(dtype, [&](auto f) {
    stats_block<decltype(f)>(static_cast<const char *>(data), n, out);
    return 0;
  });
}
bool stream_any(size_t n, Dtype dtype, NextPiece next, SeenSpan seen, void *context,
                BlockStats *out) {
  return with_format<bool>(
      dtype, [&](auto f) { return stats_stream<decltype(f)>(n, next, seen, context, out); });
}
uint64_t digest_any(const void *data, size_t bytes, uint64_t start) {
  return digest_bytes(static_cast<const char *>(data), bytes, start);
}
#if defined(__VPCLMULQDQ__)
uint64_t digest_and_fold_any(const void *data, size_t bytes, uint64_t start,
                             unsigned char *folded) {
  return digest_and_fold(static_cast<const char *>(data), bytes, start, folded);
}
#else
constexpr decltype(ArrayKernels::digest_and_fold) digest_and_fold_any = nullptr;
#endif
void exponents_any(const void *data, size_t n, Dtype dtype, uint64_t *counts) {
  with_format<int>(dtype, [&](auto f) {
    exponents_block<decltype(f)>(static_cast<const char *>(data), n, counts);
    return 0;
  });
}
uint64_t below_any(const void *data, size_t n, Dtype dtype, double bound, bool inclusive) {
  return with_format<uint64_t>(dtype, [&](auto f) {
    return below_block<decltype(f)>(static_cast<const char *>(data), n, bound, inclusive);
  });
}
uint64_t read_any(const void *data, size_t bytes) {
  return read_bytes(static_cast<const char *>(data), bytes);
}

}  // namespace

extern const ArrayKernels array_kernels;
const ArrayKernels array_kernels = {
    count_any,  has_any,    first_any,           squares_any,   abs_any,   largest_any, stats_any,
    stream_any, digest_any, digest_and_fold_any, exponents_any, below_any, read_any};

}  // namespace MLSD_TARGET_NAMESPACE
}  // namespace mlsd
