# Which instruction sets the kernels are compiled for, and with which flags. Nowhere else.
#
# Every kernel source is compiled once per target, with MLSD_TARGET_NAMESPACE naming the namespace
# that its code goes into and MLSD_VECTOR_BYTES its natural vector width.

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(MLSD_TARGETS baseline v3 v4 v4_vbmi zen4)
  set(MLSD_FLAGS_baseline "")
  set(MLSD_FLAGS_v3 -mavx2 -mfma -mf16c -mbmi -mbmi2 -mpopcnt -mlzcnt)
  set(MLSD_FLAGS_v4 ${MLSD_FLAGS_v3} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512cd
                    -mprefer-vector-width=512)
  # Ice Lake, Zen 4 and later: lookups among 128 bytes, which decode 8-bit floats, counts of bits,
  # and products without carries, which checksums are made of.
  set(MLSD_FLAGS_v4_vbmi ${MLSD_FLAGS_v4} -mavx512vbmi -mavx512vpopcntdq -mvpclmulqdq)
  # Dot products of bfloat16 as fast as any product, and integer comparisons in four places.
  set(MLSD_FLAGS_zen4 ${MLSD_FLAGS_v4_vbmi} -mavx512bf16)
  set(MLSD_BYTES_baseline 16)
  set(MLSD_BYTES_v3 32)
  set(MLSD_BYTES_v4 64)
  set(MLSD_BYTES_v4_vbmi 64)
  set(MLSD_BYTES_zen4 64)
else()
  # NEON is part of arm64; elsewhere the compiler lowers 16-byte vectors as it can.
  set(MLSD_TARGETS baseline)
  set(MLSD_FLAGS_baseline "")
  set(MLSD_BYTES_baseline 16)
endif()

function(mlsd_add_kernels name)
  add_library(${name} INTERFACE)
  foreach(target IN LISTS MLSD_TARGETS)
    add_library(${name}_${target} OBJECT ${ARGN})
    target_link_libraries(${name}_${target} PRIVATE mlsd_options)
    target_compile_options(${name}_${target} PRIVATE ${MLSD_FLAGS_${target}} -ffp-contract=fast)
    target_compile_definitions(
      ${name}_${target} PRIVATE MLSD_TARGET_NAMESPACE=${target}
                                MLSD_VECTOR_BYTES=${MLSD_BYTES_${target}})
    target_sources(${name} INTERFACE $<TARGET_OBJECTS:${name}_${target}>)
  endforeach()
endfunction()
