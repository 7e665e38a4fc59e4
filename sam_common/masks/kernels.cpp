// What evaluators and annotations need done to maps of pixels, in one pass each; kernels.py has the meaning of the
// arguments and loads it. All of it gives what NumPy or Pillow gives, to the last bit.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <vector>

namespace {

constexpr int64_t BLOCK = 2048;  // pixels whose best classes so far stay in the cache

// The place of each id in a list: a table that is at most an eighth full, searched from where the id's hash points.
class Places {
 public:
  Places(const int32_t* ids, int64_t count) {
    while ((1 << bits_) < 8 * count + 8) ++bits_;
    slots_.assign(int64_t(1) << bits_, {0, -1});
    for (int64_t k = 0; k < count; ++k) *find(ids[k]) = {ids[k], k};
  }

  // -1 where the list lacks the id.
  int64_t operator[](int32_t id) { return find(id)->place; }

 private:
  struct Slot {
    int32_t id;
    int64_t place;
  };

  Slot* find(int32_t id) {
    size_t at = (static_cast<uint32_t>(id) * 2654435769u) >> (32 - bits_);
    while (slots_[at].place >= 0 && slots_[at].id != id) at = (at + 1) & (slots_.size() - 1);
    return &slots_[at];
  }

  int bits_ = 1;
  std::vector<Slot> slots_;
};

// Three bytes in one number, each sum modulo 256.
inline uint32_t add(uint32_t x, uint32_t y) { return ((x & 0x7f7f7f) + (y & 0x7f7f7f)) ^ ((x ^ y) & 0x808080); }

inline uint32_t mean(uint32_t x, uint32_t y) { return (x & y) + ((x ^ y) >> 1 & 0x7f7f7f); }

// What PNG's filter 4 adds to: byte for byte that of left, above and corner which is nearest to left + above - corner.
inline uint32_t nearest(uint32_t left, uint32_t above, uint32_t corner) {
  if (above == corner) return left;  // within segments and along their borders
  if (left == corner) return above;
  uint32_t all = 0;
  for (int shift = 0; shift < 24; shift += 8) {
    const int a = left >> shift & 255, b = above >> shift & 255, c = corner >> shift & 255;
    const int to_a = std::abs(b - c), to_b = std::abs(a - c), to_c = std::abs(a + b - 2 * c);
    all |= uint32_t(to_a <= to_b && to_a <= to_c ? a : to_b <= to_c ? b : c) << shift;
  }
  return all;
}

// A row of a PNG in place, three bytes a pixel; `above` is the row before.
bool unfilter_row(int filter, uint32_t* row, const uint32_t* above, int64_t width) {
  uint32_t left = 0, corner = 0;
  switch (filter) {
    case 0:
      return true;
    case 1:
      for (int64_t x = 0; x < width; ++x) left = row[x] = add(row[x], left);
      return true;
    case 2:
      for (int64_t x = 0; x < width; ++x) row[x] = add(row[x], above[x]);
      return true;
    case 3:
      for (int64_t x = 0; x < width; ++x) left = row[x] = add(row[x], mean(left, above[x]));
      return true;
    case 4:
      for (int64_t x = 0; x < width; ++x) {
        left = row[x] = add(row[x], nearest(left, above[x], corner));
        corner = above[x];
      }
      return true;
    default:
      return false;
  }
}

template <typename T, typename Index>
void first_highest(const T* scores, int64_t classes, int64_t pixels, int64_t row, int64_t* out) {
  constexpr int64_t LINE = 64 / sizeof(T), LINES = 4;
  T highest[BLOCK];
  Index best[BLOCK];
  for (int64_t start = 0; start < pixels; start += BLOCK) {
    const int64_t size = std::min(BLOCK, pixels - start);
    std::copy_n(scores + start, size, highest);
    std::fill_n(best, size, Index(0));
    for (int64_t c = 1; c < classes; ++c) {
      const T* values = scores + c * row + start;
      for (int64_t part = 0; part < size; part += LINES * LINE) {
        if (c + 1 < classes)  // the next class's are far from these: no processor would look for them there
          for (int64_t line = 0; line < LINES; ++line) __builtin_prefetch(values + row + part + line * LINE);
        const int64_t end = std::min(part + LINES * LINE, size);
        for (int64_t i = part; i < end; ++i) {
          // Greater, or the first that is no number.
          const bool better = !(values[i] <= highest[i]) & (highest[i] == highest[i]);
          highest[i] = better ? values[i] : highest[i];
          best[i] = better ? Index(c) : best[i];
        }
      }
    }
    std::copy_n(best, size, out + start);
  }
}

}  // namespace

extern "C" {

int32_t unfilter_rgb(const uint8_t* data, int64_t height, int64_t width, uint32_t* ids) {
  try {
    const std::vector<uint32_t> zeros(width);
    const uint32_t* above = zeros.data();
    for (int64_t y = 0; y < height; ++y) {
      const uint8_t filter = *data++;
      for (int64_t x = 0; x < width; ++x, data += 3) ids[x] = data[0] | data[1] << 8 | data[2] << 16;
      if (!unfilter_row(filter, ids, above, width)) return 1;
      above = ids;
      ids += width;
    }
  } catch (const std::bad_alloc&) {
    return 1;
  }
  return 0;
}

int32_t joint_areas(const int32_t* truth, const int32_t* predicted, int64_t pixels, const int32_t* true_ids,
                    int64_t num_true, const int32_t* predicted_ids, int64_t num_predicted, int64_t* areas) {
  try {
    Places true_places(true_ids, num_true), predicted_places(predicted_ids, num_predicted);
    int64_t start = 0, at = 1;
    const auto changed = [&](int64_t i) { return (truth[i] != truth[i - 1]) | (predicted[i] != predicted[i - 1]); };
    const auto end_run = [&](int64_t end) {
      const int64_t row = true_places[truth[start]], column = predicted_places[predicted[start]];
      if (row < 0 || column < 0) return false;
      areas[row * num_predicted + column] += end - start;
      start = end;
      return true;
    };
    for (; at + 32 <= pixels; at += 32) {
      uint32_t changes = 0;  // a bit for each pixel, which compilers make of many at once
      for (int64_t k = 0; k < 32; ++k) changes |= uint32_t(changed(at + k)) << k;
      for (; changes; changes &= changes - 1)
        if (!end_run(at + __builtin_ctz(changes))) return 1;
    }
    for (; at < pixels; ++at)
      if (changed(at) && !end_run(at)) return 1;
    if (start < pixels && !end_run(pixels)) return 1;
  } catch (const std::bad_alloc&) {
    return 1;
  }
  return 0;
}

void first_highest_float32(const float* scores, int64_t classes, int64_t pixels, int64_t row, int64_t* out) {
  first_highest<float, int32_t>(scores, classes, pixels, row, out);
}

void first_highest_float64(const double* scores, int64_t classes, int64_t pixels, int64_t row, int64_t* out) {
  first_highest<double, int64_t>(scores, classes, pixels, row, out);
}

}  // extern "C"
