#include "core/fingerprint.h"

#include <cstring>

#include "core/cpu_features.h"

#ifdef GHOSTSR_HAS_X86
#include <immintrin.h>
#endif

namespace ghostsr {
namespace {

constexpr std::uint64_t kPrime = 0x9e3779b97f4a7c15ULL;
constexpr std::uint64_t kShortPrime = 0x9e3779b1ULL;
constexpr std::uint64_t kUpperHalf = 0xffffffff00000000ULL;

// Independent chains, as many as hide the latency of a multiplication in vectors of four.
constexpr std::size_t kChains = 32;
constexpr std::size_t kBlock = kChains * sizeof(std::uint64_t);

std::uint64_t mix(std::uint64_t state, std::uint64_t word) {
  state = (state ^ word) * kPrime;
  return state ^ (state >> 29U);
}

// Multiplies the lower half, as vectors of 64-bit lanes can, and adds the upper one: a bijection.
std::uint64_t multiply_lower(std::uint64_t value) {
  return (value & ~kUpperHalf) * kShortPrime + (value & kUpperHalf);
}

// Each step is a bijection of the chain's state and, for a given state, of the word: a single changed word is
// always seen. Both halves are multiplied before the next word comes, one after the other: a half that was
// only added would let two changed signs cancel each other.
void read_portable(const unsigned char* data, std::size_t blocks, std::uint64_t* chains) {
  for (std::size_t block = 0; block < blocks; ++block) {
    for (std::size_t chain = 0; chain < kChains; ++chain) {
      std::uint64_t word = 0;
      std::memcpy(&word, data + block * kBlock + chain * sizeof(word), sizeof(word));
      const std::uint64_t once = multiply_lower(chains[chain] ^ word);
      chains[chain] = multiply_lower((once << 32U) | (once >> 32U));
    }
  }
}

#ifdef GHOSTSR_HAS_X86
[[gnu::target("avx2")]] inline __m256i multiply_lower(__m256i value, __m256i prime) {
  const __m256i upper = _mm256_blend_epi32(_mm256_setzero_si256(), value, 0xaa);
  return _mm256_add_epi64(_mm256_mul_epu32(value, prime), upper);
}

[[gnu::target("avx2")]] void read_avx2(const unsigned char* data, std::size_t blocks, std::uint64_t* chains) {
  constexpr int kVectors = kBlock / sizeof(__m256i);
  const __m256i prime = _mm256_set1_epi64x(static_cast<long long>(kShortPrime));
  __m256i state[kVectors];
  for (int index = 0; index < kVectors; ++index) {
    state[index] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(chains) + index);
  }
  for (std::size_t block = 0; block < blocks; ++block, data += kBlock) {
#pragma GCC unroll 8
    for (int index = 0; index < kVectors; ++index) {
      const __m256i word = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(data) + index);
      const __m256i once = multiply_lower(_mm256_xor_si256(state[index], word), prime);
      state[index] = multiply_lower(_mm256_shuffle_epi32(once, 0xb1), prime);
    }
  }
  for (int index = 0; index < kVectors; ++index) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(chains) + index, state[index]);
  }
}
#endif

void read(const unsigned char* data, std::size_t blocks, std::uint64_t* chains) {
#ifdef GHOSTSR_HAS_X86
  if (simd_level() >= SimdLevel::avx2) {
    return read_avx2(data, blocks, chains);
  }
#endif
  read_portable(data, blocks, chains);
}

}  // namespace

void Fingerprint::add(std::int64_t value) {
  const auto word = static_cast<std::uint64_t>(value);
  words_ = {mix(words_[0], word), mix(words_[1], ~word)};
}

void Fingerprint::add(const void* data, std::size_t bytes) {
  const auto* from = static_cast<const unsigned char*>(data);
  std::size_t offset = 0;
  if (bytes >= 2 * kBlock) {
    const std::size_t blocks = bytes / kBlock;
    std::uint64_t chains[kChains];
    for (std::size_t chain = 0; chain < kChains; ++chain) {
      chains[chain] = (chain + 1) * kPrime;
    }
    read(from, blocks, chains);
    for (std::size_t chain = 0; chain < kChains; ++chain) {
      words_[chain % 2] = mix(words_[chain % 2], chains[chain]);
    }
    offset = blocks * kBlock;
  }
  for (; offset < bytes; offset += sizeof(std::uint64_t)) {
    std::uint64_t word = 0;
    std::memcpy(&word, from + offset, bytes - offset < sizeof(word) ? bytes - offset : sizeof(word));
    words_[0] = mix(words_[0], word);
  }
  add(static_cast<std::int64_t>(bytes));
}

}  // namespace ghostsr
