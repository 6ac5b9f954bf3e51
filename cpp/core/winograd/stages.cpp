#include "core/winograd/stages.h"

namespace ghostsr::winograd {

namespace portable {
extern const Stages table;
}
#if defined(GHOSTSR_HAS_AVX2)
namespace avx2 {
extern const Stages table;
}
#endif
#if defined(GHOSTSR_HAS_AVX512)
namespace avx512 {
extern const Stages table;
}
#endif

const Stages& stages(SimdLevel level) {
#if defined(GHOSTSR_HAS_AVX512)
  if (level >= SimdLevel::avx512) {
    return avx512::table;
  }
#endif
#if defined(GHOSTSR_HAS_AVX2)
  if (level >= SimdLevel::avx2) {
    return avx2::table;
  }
#endif
  static_cast<void>(level);
  return portable::table;
}

}  // namespace ghostsr::winograd
