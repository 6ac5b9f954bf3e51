// The host machine catches what it is there to catch, and the parts that every kernel is made of hold alone.
#include <gtest/gtest.h>

#include <limits>
#include <numeric>
#include <random>

#include "chunk.cuh"
#include "cuda_runtime.h"
#include "launch.cuh"
#include "pixel_ring.cuh"
#include "tiling.cuh"

namespace ghostsr::cuda_test {
namespace {

void run(int blocks, int threads, void (*kernel)(int*, int), int* data, int count) {
  cuda::launch("kernel", kernel, blocks, threads, nullptr, data, count);
}

TEST(HostMachine, RunsEveryThreadOfEveryBlock) {
  std::vector<int> runs(7 * 33, 0);
  run(7, 33, [](int* data, int) { ++data[blockIdx.x * 33 + threadIdx.x]; }, runs.data(), 0);
  EXPECT_EQ(runs, std::vector<int>(7 * 33, 1));
}

TEST(HostMachine, HoldsThreadsAtABarrierUntilAllHaveArrived) {
  std::vector<int> data(64, 0);
  host_cuda::seed_thread_order(1);
  run(
      1, 64,
      [](int* values, int count) {
        values[threadIdx.x] = 1;
        __syncthreads();
        const int sum = std::accumulate(values, values + count, 0);
        __syncthreads();
        values[threadIdx.x] = sum;
      },
      data.data(), 64);
  EXPECT_EQ(data, std::vector<int>(64, 64));
}

TEST(HostMachine, ShowsARaceAsAResultThatDependsOnTheOrder) {
  std::vector<std::vector<int>> results;
  for (uint64_t seed = 1; seed <= 2; ++seed) {
    std::vector<int> data(64, 0);
    host_cuda::seed_thread_order(seed);
    run(
        1, 64, [](int* values, int count) { values[threadIdx.x] = values[(threadIdx.x + 1) % count] + 1; },
        data.data(), 64);
    results.push_back(data);
  }
  EXPECT_NE(results[0], results[1]);
}

TEST(HostMachine, RefusesToReadOrWriteWhatIsNotLent) {
  std::vector<float> values(8);
  const host_cuda::Loan loan(values.data(), 7 * sizeof(float), true);
  const auto write = [&](int index) {
    cuda::launch(
        "write", +[](float* data, int at) { cuda::store(data + at, 1.0F); }, 1, 1, nullptr, values.data(),
        index);
  };
  const auto read = [&] {
    cuda::launch(
        "read", +[](const float* data) { cuda::load(data); }, 1, 1, nullptr,
        static_cast<const float*>(values.data()));
  };
  write(6);
  write(6);
  EXPECT_EQ(loan.writes()[24], 2);
  EXPECT_THROW(write(7), std::runtime_error);
  EXPECT_THROW(read(), std::runtime_error);
}

TEST(HostMachine, RefusesWideAccessesOffTheirBoundary) {
  alignas(16) float values[8] = {};
  const host_cuda::Loan loan(values, sizeof(values), false);
  const auto read = [&](int index) {
    cuda::launch(
        "read", +[](const float* data, int at) { cuda::load_chunk(data + at); }, 1, 1, nullptr,
        static_cast<const float*>(values), index);
  };
  read(4);
  EXPECT_THROW(read(1), std::runtime_error);
}

TEST(FastDivisor, DividesEveryKindOfNumber) {
  std::mt19937_64 random(1);
  std::vector<int32_t> numbers{0, 1, 2, 3, 7, 8, 255, 256, 257, 65535, 65536, 2147483646, 2147483647};
  for (int index = 0; index < 2000; ++index) {
    numbers.push_back(static_cast<int32_t>(random() >> (33 + random() % 31)));
  }
  for (const int32_t divisor : numbers) {
    if (divisor == 0) {
      continue;
    }
    const cuda::FastDivisor fast(divisor);
    for (const int32_t number : numbers) {
      const cuda::Quotient quotient = fast.divide(number);
      ASSERT_EQ(quotient.value, number / divisor) << number << " / " << divisor;
      ASSERT_EQ(quotient.remainder, number % divisor) << number << " % " << divisor;
    }
  }
}

template <typename T>
void expect_windows() {
  constexpr int kCount = cuda::kChunk<T>;
  std::vector<T> memory(64);
  for (int lead = 0; lead < kCount; ++lead) {
    for (int width = 1; width < 30; ++width) {
      const auto past = static_cast<int>(reinterpret_cast<uintptr_t>(memory.data()) % 16 / sizeof(T));
      T* row = memory.data() + (kCount - past) % kCount + lead;
      for (int x = 0; x < width; ++x) {
        row[x] = T(static_cast<accumulator_t<T>>(x + 1));
      }
      const host_cuda::Loan loan(row, width * sizeof(T), false);
      for (int x = -20; x < 40; ++x) {
        accumulator_t<T> values[kCount];
        cuda::unpack<T>(cuda::read_window(static_cast<const T*>(row), width, x), values);
        for (int index = 0; index < kCount; ++index) {
          const int at = x + index;
          ASSERT_EQ(values[index], at >= 0 && at < width ? at + 1 : 0)
              << "row of " << width << " at " << lead << ", x = " << x;
        }
      }
    }
  }
}

TEST(Windows, ReadAnyStretchOfARowOfAnyAlignmentAndZeroOutside) {
  expect_windows<float>();
  expect_windows<double>();
  expect_windows<Float16>();
  expect_windows<BFloat16>();
}

TEST(Launch, SplitsABatchThatTheGridCannotHold) {
  std::vector<std::pair<int64_t, int64_t>> launches;
  cuda::launch_in_batches(int64_t{1} << 32, 3,
                          [&](int64_t first, int64_t blocks) { launches.emplace_back(first, blocks); });
  int64_t next = 0;
  for (const auto& [first, blocks] : launches) {
    EXPECT_EQ(first, next);
    EXPECT_LE(blocks, cuda::kMostBlocks);
    EXPECT_EQ(blocks % 3, 0);
    next = first + blocks / 3;
  }
  EXPECT_EQ(next, int64_t{1} << 32);
}

TEST(Launch, NamesTheKernelInItsErrors) {
  const auto message = [](int64_t blocks, int threads) {
    try {
      cuda::launch("shift_concat_rows", +[](int) {}, blocks, threads, nullptr, 0);
    } catch (const std::runtime_error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(message(1, 2000), "ghostsr: launching shift_concat_rows: invalid configuration argument");
  EXPECT_NE(message(int64_t{1} << 31, 1).find("shift_concat_rows"), std::string::npos);
  EXPECT_EQ(message(0, 1), "");
}

TEST(Tiling, HoldsBatchesChannelsAndPlanesBeyondTheLimitsOfOneAxisOfAGrid) {
  const Extent many_planes{100000, 4, 4};
  EXPECT_EQ(cuda::RowTiling::of<float>(many_planes, 100000, true).blocks_per_image, 100000);
  const Extent large{1, 40000, 50000};
  EXPECT_EQ(cuda::RowTiling::of<float>(large, 3, true).blocks_per_image,
            3 * cuda::divide_up(int64_t{40000} * 12500, cuda::kTileItems));
  EXPECT_EQ(cuda::ElementTiling::of(large, 3, false).blocks_per_image,
            40000 * cuda::divide_up(3 * 50000, cuda::kTileItems));
}

TEST(Tiling, RefusesAPlaneThatIntegersCannotCount) {
  EXPECT_THROW(cuda::PixelTiling::of<float>({1, 1 << 20, 1 << 20}, 8), std::runtime_error);
  EXPECT_THROW(cuda::RingTiling::of({1, 1, int64_t{1} << 31}, 32), std::runtime_error);
  EXPECT_THROW(cuda::RingTiling::of({1, int64_t{1} << 31, 1}, 32), std::runtime_error);
  EXPECT_THROW(cuda::ElementTiling::of({1, 1, 1 << 20}, 1 << 20, true), std::runtime_error);
}

}  // namespace
}  // namespace ghostsr::cuda_test
