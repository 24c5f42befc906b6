/* SPDX-License-Identifier: MIT */
/* What in-kernel headers take from the rest of the kernel, as far as constants and structures need it. */
#ifndef HVABI_SHIM_H
#define HVABI_SHIM_H
typedef unsigned char u8, __u8;
typedef unsigned short u16, __u16, __le16, __be16;
typedef unsigned int u32, __u32, __le32, __be32;
typedef unsigned long long u64, __u64, __le64, __be64, __aligned_u64;
typedef signed char s8, __s8;
typedef short s16, __s16;
typedef int s32, __s32;
typedef long long s64, __s64;
typedef u8 uint8_t;
typedef u16 uint16_t;
typedef u32 uint32_t;
typedef u64 uint64_t;
typedef unsigned long phys_addr_t, dma_addr_t, resource_size_t, uintptr_t, size_t, gpa_t, gfn_t;
typedef _Bool bool;
typedef struct { u8 b[16]; } uuid_t, guid_t;
#define true 1
#define false 0
#define NULL ((void *)0)
#define __packed __attribute__((packed))
#define __aligned(n) __attribute__((aligned(n)))
#define __always_inline inline
#define __must_check
#define __init
#define __noreturn
#define noinstr
#define asmlinkage
#define __read_mostly
#define __free(name)
#define __user
#define __bitwise
#define __maybe_unused
#define __ro_after_init
#define __percpu
#define __head
#define __counted_by(member)
#define DECLARE_FLEX_ARRAY(type, name) struct { struct { } empty; type name[]; }
#define _AC(value, suffix) value##suffix
#define _UL(value) value##UL
#define _ULL(value) value##ULL
#define UL(value) value##UL
#define ULL(value) value##ULL
#define _BITUL(n) (1UL << (n))
#define _BITULL(n) (1ULL << (n))
#define BIT(n) (1ULL << (n))
#define BIT_ULL(n) (1ULL << (n))
#define GENMASK(high, low) ((~0ULL << (low)) & (~0ULL >> (63 - (high))))
#define GENMASK_ULL(high, low) GENMASK(high, low)
#define __bf_shf(mask) __builtin_ctzll(mask)
#define FIELD_PREP(mask, value) (((u64)(value) << __bf_shf(mask)) & (mask))
#define FIELD_GET(mask, value) (((value) & (mask)) >> __bf_shf(mask))
#define DECLARE_BITMAP(name, bits) unsigned long name[((bits) + 63) / 64]
#define BUILD_BUG_ON(condition)
#define static_assert(...)
#define ASSERT_STRUCT_OFFSET(...)
#define DECLARE_STATIC_KEY_FALSE(name)
#define DECLARE_PER_CPU(type, name)
#define EXPORT_SYMBOL_GPL(name)
#define IS_ENABLED(option) 0
#define IS_BUILTIN(option) 0
#define IS_REACHABLE(option) 0
#define PAGE_SHIFT 12
#define PAGE_MASK (~(PAGE_SIZE - 1))
#define PAGE_SIZE 4096UL
#define HZ 250
struct list_head { struct list_head *next, *prev; };
#define EIO 5
#define ENODEV 19
#define EINVAL 22
#define ENOTTY 25
#define ENOSYS 38
#define EOPNOTSUPP 95
#define offsetof(type, member) __builtin_offsetof(type, member)
#define sizeof_field(type, member) sizeof(((type *)0)->member)
#define __TRAILING_OVERLAP(type, name, flex, attributes, ...) type name
#define struct_size(pointer, member, count) 0
#define fallthrough
#define CC_IPM(symbol)
#define CC_OUT(symbol, variable) "=d" (variable)
#define CC_TRANSFORM(value) (value)
#define CC_CLOBBER_LIST(...) __VA_ARGS__
typedef unsigned long ulong, pteval_t, pmdval_t;
typedef struct { unsigned long value; } pte_t, pmd_t, pgd_t, pgprot_t, spinlock_t;
struct kvm_vcpu { int unused; }; struct mutex { int unused; }; struct device { int unused; };
struct device_driver { int unused; }; struct insn { int unused; };
enum pg_level { PG_UNUSED };
struct module;
typedef struct cpumask cpumask_t;
#endif
