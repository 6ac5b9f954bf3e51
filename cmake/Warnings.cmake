# ghostsr_warnings(target): the warnings that ghostsr's own C++ is free of.
function(ghostsr_warnings target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wno-psabi)
  if(GHOSTSR_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
endfunction()
