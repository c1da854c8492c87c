// Rolling statistics of folds.hpp: windows sewn from backward sums of the block before and forward
// sums of this one. The median: both blocks sorted once, then linked lists from which places are
// taken out and put back (Suomela, Median Filtering is Equivalent to Sorting, 2014).
#pragma once

#include "kernels/window-inl.hpp"

namespace mlsd {
namespace MLSD_TARGET_NAMESPACE {

// ---- median -------------------------------------------------------------------------------------

// Values with their places, sorted by value and then place, by merging runs sorted by rank.
inline void sort_places(const double *x, size_t n, double *values, int32_t *places,
                        double *other_values, int32_t *other_places) {
  constexpr size_t run = 32;
  double *from = values, *to = other_values;
  int32_t *from_place = places, *to_place = other_places;
  size_t levels = 0;
  for (size_t width = run; width < n; width *= 2) ++levels;
  if (levels % 2 != 0) {
    from = other_values;
    from_place = other_places;
    to = values;
    to_place = places;
  }
  for (size_t start = 0; start < n; start += run) {
    const size_t count = least(run, n - start);
    const double *part = x + start;
    for (size_t i = 0; i < count; ++i) {
      const double v = part[i];
      int64_t before = 0;
      for (size_t j = 0; j < i; ++j) before += part[j] <= v;
      for (size_t j = i + 1; j < count; ++j) before += part[j] < v;
      from[start + static_cast<size_t>(before)] = v;
      from_place[start + static_cast<size_t>(before)] = static_cast<int32_t>(start + i);
    }
  }
  for (size_t width = run; width < n; width *= 2) {
    for (size_t start = 0; start < n; start += 2 * width) {
      const size_t middle = least(start + width, n), end = least(start + 2 * width, n);
      size_t i = start, j = middle, k = start;
      while (i < middle && j < end) {
        const bool low = from[i] <= from[j];
        to[k] = low ? from[i] : from[j];
        to_place[k] = low ? from_place[i] : from_place[j];
        i += low;
        j += !low;
        ++k;
      }
      for (; i < middle; ++i, ++k) {
        to[k] = from[i];
        to_place[k] = from_place[i];
      }
      for (; j < end; ++j, ++k) {
        to[k] = from[j];
        to_place[k] = from_place[j];
      }
    }
    double *const v = from;
    from = to;
    to = v;
    int32_t *const p = from_place;
    from_place = to_place;
    to_place = p;
  }
}

// A block as a linked list of ranks 1..size between a head and a tail.
struct SortedBlock {
  double *value;  // by rank; the tail is +infinity
  int32_t *next, *previous;
  int32_t *rank;  // by place
  size_t size;
  int32_t middle;  // the first rank that is not among the `small` ones
  int32_t small;

  static constexpr size_t doubles(size_t window) { return (window + 2) + 3 * (window / 2 + 2); }
  static SortedBlock at(double *memory, size_t window) {
    SortedBlock block = {};
    block.value = memory;
    block.next = reinterpret_cast<int32_t *>(memory + window + 2);
    block.previous = reinterpret_cast<int32_t *>(memory + window + 2 + (window / 2 + 2));
    block.rank = reinterpret_cast<int32_t *>(memory + window + 2 + 2 * (window / 2 + 2));
    return block;
  }

  void build(const double *x, size_t n, int32_t wanted, double *spare) {
    size = n;
    double *other = spare;
    int32_t *places = reinterpret_cast<int32_t *>(spare + n);
    int32_t *other_places = places + n;
    sort_places(x, n, value + 1, places, other, other_places);
    value[0] = -kUnbounded;
    value[n + 1] = kUnbounded;
    for (size_t r = 0; r < n; ++r) rank[places[r]] = static_cast<int32_t>(r + 1);
    for (size_t r = 0; r < n + 2; ++r) {
      next[r] = static_cast<int32_t>(r + 1);
      previous[r] = static_cast<int32_t>(r) - 1;
    }
    middle = wanted + 1;
    small = wanted;
  }
  void empty() {
    for (size_t i = size; i-- > 0;) unlink(rank[i]);
    middle = static_cast<int32_t>(size + 1);
    small = 0;
  }
  void unlink(int32_t r) {
    next[previous[r]] = next[r];
    previous[next[r]] = previous[r];
  }
  void take_out(size_t place) {
    const int32_t r = rank[place];
    unlink(r);
    if (r < middle) {
      --small;
      return;
    }
    if (r == middle) middle = next[middle];
    if (small > 0) {
      middle = previous[middle];
      --small;
    }
  }
  void put_back(size_t place) {
    const int32_t r = rank[place];
    next[previous[r]] = r;
    previous[next[r]] = r;
    if (r < middle) middle = previous[middle];
  }
  void advance() {
    middle = next[middle];
    ++small;
  }
  double peek() const { return value[middle]; }
  double peek_next() const { return value[next[middle]]; }
};

// ---- sums ---------------------------------------------------------------------------------------

struct Sums {
  double *array[kRollingSums];
};

inline void start_sums(double *sum) {
  for (int i = 0; i < kRollingSums; ++i) sum[i] = 0;
  sum[kSumMin] = kUnbounded;
  sum[kSumMax] = -kUnbounded;
}

inline bool all_finite(const double *x, size_t n) {
  int64_t bad = 0;
  for (size_t i = 0; i < n; ++i) bad += !(__builtin_fabs(x[i]) <= kLargest);
  return bad == 0;
}

// The least and the greatest so far. Of `y < low ? y : low` in a loop that holds both, compilers
// make a compare and moves through integer registers: 8 cycles a value, where these take 2.
struct Extent {
#if defined(__x86_64__)
  __m128d low, high;
  Extent(double least, double greatest) : low(_mm_set_sd(least)), high(_mm_set_sd(greatest)) {}
  void take(double y) {
    low = _mm_min_sd(_mm_set_sd(y), low);
    high = _mm_max_sd(_mm_set_sd(y), high);
  }
  double least() const { return _mm_cvtsd_f64(low); }
  double greatest() const { return _mm_cvtsd_f64(high); }
#else
  double low, high;
  Extent(double least, double greatest) : low(least), high(greatest) {}
  void take(double y) {
    low = y < low ? y : low;
    high = y > high ? y : high;
  }
  double least() const { return low; }
  double greatest() const { return high; }
#endif
};

// Sums that statistics are made of; the others stay as they were. Of values there always are some:
// the finite ones are counted with them.
enum Needs : unsigned { kNeedSquares = 1, kNeedPlaces = 2, kNeedExtent = 4, kNeedAll = 7 };

inline unsigned needs_of(unsigned stats) {
  unsigned needs = 0;
  if (stats & kRollStd) needs |= kNeedSquares;
  if (stats & kRollSlope) needs |= kNeedPlaces;
  if (stats & (kRollMin | kRollMax)) needs |= kNeedExtent;
  return needs;
}

// One direction through a block: places [first, last) going up, or last-1 down to first. `sum` goes
// on; the centre is the first finite value met. Where all values are finite (Clean), sums that
// depend on the places alone are left to fill_counts.
template <unsigned Need, bool Clean, bool Backward>
inline void scan(const double *x, size_t first, size_t last, double *sum, double *centre,
                 const Sums &out) {
  double count = sum[kSumFinite], s1 = sum[kSumValue], s2 = sum[kSumSquare];
  double sp = sum[kSumPlace], spp = sum[kSumPlaceSquare], spv = sum[kSumPlaceValue];
  double c = *centre;
  Extent extent(sum[kSumMin], sum[kSumMax]);
  if (Clean && count == 0 && first < last) c = x[Backward ? last - 1 : first];
  for (size_t k = first; k < last; ++k) {
    const size_t i = Backward ? last - 1 - (k - first) : k;
    const double place = static_cast<double>(static_cast<int64_t>(i));
    if (Clean || finite(x[i])) {
      const double y = Clean ? x[i] : clamped(x[i], kLargest);
      if (!Clean && count == 0) c = y;
      const double v = y - c;
      s1 += v;
      if (Need & kNeedSquares) s2 += v * v;
      if (Need & kNeedPlaces) {
        const double pv = place * v;
        spv += pv;
      }
      if (Need & kNeedExtent) extent.take(y);
      if (!Clean) {
        count += 1;
        sp += place;
        spp += place * place;
      }
    }
    out.array[kSumValue][i] = s1;
    if (Need & kNeedSquares) out.array[kSumSquare][i] = s2;
    if (Need & kNeedPlaces) out.array[kSumPlaceValue][i] = spv;
    if (Need & kNeedExtent) {
      out.array[kSumMin][i] = extent.least();
      out.array[kSumMax][i] = extent.greatest();
    }
    if (!Clean) {
      out.array[kSumFinite][i] = count;
      out.array[kSumPlace][i] = sp;
      out.array[kSumPlaceSquare][i] = spp;
    }
  }
  sum[kSumFinite] = count;
  sum[kSumValue] = s1;
  sum[kSumSquare] = s2;
  sum[kSumPlace] = sp;
  sum[kSumPlaceSquare] = spp;
  sum[kSumPlaceValue] = spv;
  sum[kSumMin] = extent.least();
  sum[kSumMax] = extent.greatest();
  *centre = c;
}

// The same with what is needed known only now: of what is asked for alone, or of everything.
template <bool Clean, bool Backward>
inline void scan(unsigned needs, const double *x, size_t first, size_t last, double *sum,
                 double *centre, const Sums &out) {
  switch (needs) {
    case 0:
      return scan<0, Clean, Backward>(x, first, last, sum, centre, out);
    case kNeedSquares:
      return scan<kNeedSquares, Clean, Backward>(x, first, last, sum, centre, out);
    case kNeedPlaces:
      return scan<kNeedPlaces, Clean, Backward>(x, first, last, sum, centre, out);
    case kNeedExtent:
      return scan<kNeedExtent, Clean, Backward>(x, first, last, sum, centre, out);
    default:
      return scan<kNeedAll, Clean, Backward>(x, first, last, sum, centre, out);
  }
}

// What Clean left out, in closed form: whole numbers below 2^53, the same bits as added one by one.
template <bool Backward>
inline void fill_counts(size_t first, size_t last, double *sum, const Sums &out) {
  const auto whole = [](int64_t v) { return static_cast<double>(v); };
  const auto places = [](int64_t n) { return n * (n - 1) / 2; };  // below n
  const auto squares = [](int64_t n) { return (n - 1) * n * (2 * n - 1) / 6; };
  const int64_t a = static_cast<int64_t>(first), b = static_cast<int64_t>(last);
  const double count = sum[kSumFinite], sp = sum[kSumPlace], spp = sum[kSumPlaceSquare];
  for (int64_t i = a; i < b; ++i) {
    const int64_t low = Backward ? i : a, high = Backward ? b : i + 1;
    out.array[kSumFinite][i] = count + whole(high - low);
    out.array[kSumPlace][i] = sp + whole(places(high) - places(low));
    out.array[kSumPlaceSquare][i] = spp + whole(squares(high) - squares(low));
  }
}
inline void add_counts(size_t first, size_t last, double *sum) {
  const int64_t a = static_cast<int64_t>(first), b = static_cast<int64_t>(last);
  sum[kSumFinite] += static_cast<double>(b - a);
  sum[kSumPlace] += static_cast<double>(b * (b - 1) / 2 - a * (a - 1) / 2);
  sum[kSumPlaceSquare] +=
      static_cast<double>((b - 1) * b * (2 * b - 1) / 6 - (a - 1) * a * (2 * a - 1) / 6);
}

// Everything that the outputs of one block are made of.
struct Sewing {
  size_t window, min_count;
  double ddof;
  const Sums *before, *now;
  double shift;   // centre of the block before minus this one's
  double centre;  // this one's
};

// Places [first, last) of a block whose windows hold `window` finite values each.
inline void sew_full(const Sewing &s, size_t first, size_t last, double *const *out, size_t at) {
  const double w = static_cast<double>(s.window), d = s.shift, c = s.centre;
  const double degrees = w - s.ddof;
  // Divisions by what all windows share are products with its reciprocal, here and in sew_one.
  const double share = 1 / w, freedom = 1 / degrees;
  const double half = 0.5 * (w - 1), spread = 1 / (w * (w * w - 1) / 12);
  const double *b1 = s.before->array[kSumValue] + 1, *b2 = s.before->array[kSumSquare] + 1;
  const double *bpv = s.before->array[kSumPlaceValue] + 1;
  const double *f1 = s.now->array[kSumValue], *f2 = s.now->array[kSumSquare];
  const double *fpv = s.now->array[kSumPlaceValue];
  const auto place_of = [](size_t i) { return static_cast<double>(static_cast<int64_t>(i)); };
  if (double *mean = out[0])
    for (size_t i = first; i < last; ++i) {
      const double bn = w - 1 - place_of(i);
      mean[at + (i - first)] = c + ((b1[i] + bn * d) + f1[i]) * share;
    }
  if (double *std = out[1])
    for (size_t i = first; i < last; ++i) {
      const double bn = w - 1 - place_of(i);
      const double s1 = (b1[i] + bn * d) + f1[i];
      const double s2 = (b2[i] + (2 * d * b1[i] + bn * (d * d))) + f2[i];
      const double m2 = s2 - s1 * s1 * share;
      std[at + (i - first)] = __builtin_sqrt((m2 > 0 ? m2 : 0.0) * freedom);
    }
  if (double *slope = out[2])
    for (size_t i = first; i < last; ++i) {
      const double place = place_of(i), bn = w - 1 - place;
      const double bp = 0.5 * (w * (w - 1) - (place + 1) * place);  // of places i + 1 to w - 1
      const double s1 = (b1[i] + bn * d) + f1[i];
      const double stv = (bpv[i] - w * b1[i]) + d * (bp - w * bn) + fpv[i];
      slope[at + (i - first)] = (stv - (place - half) * s1) * spread;
    }
  if (double *low = out[3]) {
    const double *b = s.before->array[kSumMin] + 1, *f = s.now->array[kSumMin];
    for (size_t i = first; i < last; ++i) low[at + (i - first)] = b[i] < f[i] ? b[i] : f[i];
  }
  if (double *high = out[4]) {
    const double *b = s.before->array[kSumMax] + 1, *f = s.now->array[kSumMax];
    for (size_t i = first; i < last; ++i) high[at + (i - first)] = b[i] > f[i] ? b[i] : f[i];
  }
}

// One place, whatever its window holds. Sums are read where their statistic is asked for: else
// nobody wrote them.
inline void sew_one(const Sewing &s, size_t i, double *const *out, size_t at) {
  const bool inner = i + 1 < s.window;
  const auto before = [&](RollingSum which) { return inner ? s.before->array[which][i + 1] : 0.0; };
  const auto now = [&](RollingSum which) { return s.now->array[which][i]; };
  const double w = static_cast<double>(s.window), d = s.shift;
  const double bn = before(kSumFinite), b1 = before(kSumValue);
  const double count = bn + now(kSumFinite);
  const double s1 = (b1 + bn * d) + now(kSumValue);
  const double share = 1 / count;
  const bool enough = count > 0 && count >= static_cast<double>(s.min_count);
  if (out[0] != nullptr) out[0][at] = enough ? s.centre + s1 * share : kUnknown;
  if (out[1] != nullptr) {
    const double s2 = (before(kSumSquare) + (2 * d * b1 + bn * (d * d))) + now(kSumSquare);
    const double m2 = s2 - s1 * s1 * share;
    const double degrees = count - s.ddof;
    out[1][at] =
        enough && degrees > 0 ? __builtin_sqrt((m2 > 0 ? m2 : 0.0) * (1 / degrees)) : kUnknown;
  }
  if (out[2] != nullptr) {
    const double bp = before(kSumPlace), bpv = before(kSumPlaceValue);
    const double stv = (bpv - w * b1) + d * (bp - w * bn) + now(kSumPlaceValue);
    double slope = kUnknown;
    if (enough && count == w) {
      const double place = static_cast<double>(static_cast<int64_t>(i));
      slope = (stv - (place - 0.5 * (w - 1)) * s1) * (1 / (w * (w * w - 1) / 12));
    } else if (enough) {
      const double st = (bp - w * bn) + now(kSumPlace);
      const double stt = (before(kSumPlaceSquare) - 2 * w * bp + w * w * bn) + now(kSumPlaceSquare);
      const double spread = stt - st * st / count;
      if (spread > 0) slope = (stv - st / count * s1) / spread;
    }
    out[2][at] = slope;
  }
  if (out[3] != nullptr) {
    const double b = inner ? s.before->array[kSumMin][i + 1] : kUnbounded, f = now(kSumMin);
    out[3][at] = enough ? (b < f ? b : f) : kUnknown;
  }
  if (out[4] != nullptr) {
    const double b = inner ? s.before->array[kSumMax][i + 1] : -kUnbounded, f = now(kSumMax);
    out[4][at] = enough ? (b > f ? b : f) : kUnknown;
  }
}

// ---- the fold -----------------------------------------------------------------------------------

struct Rolling {
  double *row;
  const RollingSettings &settings;
  double *const *out;
  double *scratch;
  SortedBlock older, newer;
  bool older_ready;  // `older` holds the whole block before
  bool back_due;     // counts of the block before are still to be filled in

  double *current() const { return row + kRollingHeader; }
  double *previous() const { return current() + settings.window; }
  Sums backward() const {
    Sums sums;
    for (int i = 0; i < kRollingSums; ++i)
      sums.array[i] = previous() + settings.window * static_cast<size_t>(1 + i);
    return sums;
  }

  void begin() {
    if (row[kRollingVersion] == 0) {
      row[kRollingVersion] = kRollingLayout;
      start_sums(row + kRollingRunning);
      const Sums back = backward();
      for (size_t i = 0; i < settings.window; ++i) {
        back.array[kSumMin][i] = kUnbounded;
        back.array[kSumMax][i] = -kUnbounded;
      }
    }
    const size_t w = settings.window;
    double *memory = scratch + w * kRollingSums;
    older = SortedBlock::at(memory, w);
    newer = SortedBlock::at(memory + SortedBlock::doubles(w), w);
    older_ready = false;
  }
  double *spare() const {
    return scratch + settings.window * kRollingSums + 2 * SortedBlock::doubles(settings.window);
  }

  // Places [first, last) of this block; their values stand in current() already.
  void medians(size_t first, size_t last, bool clean, double *median) {
    const size_t w = settings.window;
    // The sort relies on numbers: of the block before it must be seen, not believed.
    const bool full = row[kRollingPrevious] != 0 && clean && last - first >= 4 &&
                      (older_ready || all_finite(previous(), w));
    if (!full) {
      older_ready = false;
      for (size_t i = first; i < last; ++i) median[i - first] = median_of_window(i);
      return;
    }
    const int32_t wanted = static_cast<int32_t>((w - 1) / 2);
    if (!older_ready) older.build(previous(), w, wanted, spare());
    newer.build(current(), last, 0, spare());
    newer.empty();
    for (size_t i = 0; i < last; ++i) {
      older.take_out(i);
      newer.put_back(i);
      if (older.small + newer.small < wanted) {
        if (older.peek() <= newer.peek())
          older.advance();
        else
          newer.advance();
      }
      if (i < first) continue;
      const double a = older.peek(), b = newer.peek();
      double found = a <= b ? a : b;
      if (w % 2 == 0) {
        const double other = a <= b ? older.peek_next() : newer.peek_next();
        const double rest = a <= b ? b : a;
        found = 0.5 * (found + (other < rest ? other : rest));
      }
      median[i - first] = found + 0.0;  // -0.0 and 0.0 are one value
    }
    older_ready = last == w;
    if (older_ready) {
      const SortedBlock empty = older;
      older = newer;
      newer = empty;
    }
  }

  double median_of_window(size_t i) const {
    double *x = spare();
    size_t count = 0;
    const auto take = [&](double v) {
      if (finite(v)) x[count++] = clamped(v, kLargest);
    };
    if (row[kRollingPrevious] != 0)
      for (size_t k = i + 1; k < settings.window; ++k) take(previous()[k]);
    for (size_t k = 0; k <= i; ++k) take(current()[k]);
    if (count == 0 || count < settings.min_count) return kUnknown;
    const Pair found = select_pair(x, count, (count - 1) / 2);
    return (count % 2 != 0 ? found.first : 0.5 * (found.first + found.second)) + 0.0;
  }

  void fold(const double *x, size_t n) {
    const size_t w = settings.window;
    Sums forward;
    for (int i = 0; i < kRollingSums; ++i) forward.array[i] = scratch + w * static_cast<size_t>(i);
    const Sums back = backward();
    const bool sums = (settings.stats & ~static_cast<unsigned>(kRollMedian)) != 0;
    const unsigned needs = needs_of(settings.stats);
    size_t at = 0;
    while (at < n) {
      const size_t first = static_cast<size_t>(row[kRollingPlace]);
      const size_t last = least(w, first + (n - at));
      double *running = row + kRollingRunning;
      __builtin_memcpy(current() + first, x + at, (last - first) * sizeof(double));
      const bool fresh_clean = all_finite(x + at, last - first);
      const bool clean = fresh_clean && all_finite(current(), first);
      double *centre = row + kRollingCentre;
      if (fresh_clean) {
        scan<true, false>(needs, current(), first, last, running, centre, forward);
        if (!full_windows(clean)) {
          fill_counts<false>(first, last, running, forward);
          settle_back(back);
        }
        add_counts(first, last, running);
      } else {
        scan<false, false>(needs, current(), first, last, running, centre, forward);
        settle_back(back);
      }
      if (sums) sew(forward, back, first, last, clean, at);
      if (out[5] != nullptr) medians(first, last, clean, out[5] + at);
      if (last == w) finish_block(clean, back);
      row[kRollingPlace] = last == w ? 0.0 : static_cast<double>(last);
      row[kRollingSeen] += static_cast<double>(last - first);
      at += last - first;
    }
    settle_back(back);
  }

  // Whether every window that ends in these places is full of finite values.
  bool full_windows(bool clean) const {
    return clean && row[kRollingPrevious] != 0 && row[kRollingClean] != 0 &&
           settings.ddof < static_cast<double>(settings.window) && settings.window > 1;
  }

  // Counts of the block before that no one has asked for yet; due before they are read or saved.
  void settle_back(const Sums &back) {
    if (!back_due) return;
    double none[kRollingSums];
    start_sums(none);
    fill_counts<true>(0, settings.window, none, back);
    back_due = false;
  }

  void sew(const Sums &forward, const Sums &back, size_t first, size_t last, bool clean,
           size_t at) const {
    const size_t w = settings.window;
    const double centre = row[kRollingCentre];
    const bool sewn = row[kRollingPrevious] != 0 && row[kRollingRunning + kSumFinite] > 0;
    Sewing one = {w,     settings.min_count, settings.ddof,
                  &back, &forward,           sewn ? row[kRollingPrevCentre] - centre : 0.0,
                  centre};
    // Until this block has a finite value, its centre is the other one's.
    if (row[kRollingRunning + kSumFinite] == 0) one.centre = row[kRollingPrevCentre];
    if (full_windows(clean)) {
      const size_t inner = last == w ? w - 1 : last;
      if (first < inner) sew_full(one, first, inner, out, at);
      if (last == w) {  // nothing of the block before
        forward.array[kSumFinite][w - 1] = static_cast<double>(w);
        sew_one(one, w - 1, out, at + (w - 1 - first));
      }
      return;
    }
    for (size_t i = first; i < last; ++i) {
      Sewing here = one;
      if (forward.array[kSumFinite][i] == 0) {  // no finite value of this block up to here
        here.shift = 0;
        here.centre = row[kRollingPrevCentre];
      }
      sew_one(here, i, out, at + (i - first));
    }
  }

  void finish_block(bool clean, const Sums &back) {
    const size_t w = settings.window;
    const unsigned needs = needs_of(settings.stats);
    double sum[kRollingSums];
    start_sums(sum);
    double centre = 0;
    if (clean)
      scan<true, true>(needs, current(), 0, w, sum, &centre, back);
    else
      scan<false, true>(needs, current(), 0, w, sum, &centre, back);
    back_due = clean;
    __builtin_memcpy(previous(), current(), w * sizeof(double));
    row[kRollingPrevCentre] = centre;
    row[kRollingPrevious] = 1;
    row[kRollingClean] = clean ? 1 : 0;
    row[kRollingCentre] = 0;
    start_sums(row + kRollingRunning);
  }
};

inline void fold_rolling(const double *x, size_t n, double *row, const RollingSettings &settings,
                         double *const *out, double *scratch) {
  Rolling rolling = {row, settings, out, scratch, {}, {}, false, false};
  rolling.begin();
  rolling.fold(x, n);
}

}  // namespace MLSD_TARGET_NAMESPACE
}  // namespace mlsd
