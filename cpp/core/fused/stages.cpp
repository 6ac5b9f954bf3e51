#include "core/fused/stages.h"

namespace ghostsr::fused {

namespace portable {
extern const Stages table;
}
#if defined(GHOSTSR_HAS_X86)
namespace avx2 {
extern const Stages table;
}
namespace avx512 {
extern const Stages table;
}
#endif

const Stages& stages([[maybe_unused]] SimdLevel level) {
#if defined(GHOSTSR_HAS_X86)
  if (level >= SimdLevel::avx512) {
    return avx512::table;
  }
  if (level >= SimdLevel::avx2) {
    return avx2::table;
  }
#endif
  return portable::table;
}

}  // namespace ghostsr::fused
