/* Counts, below Python and below RocksDB, what a process does to its files and how many bytes it copies.

   Preloaded; `holdfast_counts` copies the counters out.  Copies are those of memcpy and memmove of COPY_BYTES and more
   that go through the C library, so neither what a compiler inlines nor what the kernel copies is among them. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define COPY_BYTES 2048

enum { SYNCS, OPENS, WRITTEN, READ, COPIED, COUNTERS };

static uint64_t counters[COUNTERS];

static void add(int which, uint64_t count) { __atomic_fetch_add(&counters[which], count, __ATOMIC_RELAXED); }

void holdfast_counts(uint64_t *into)
{
    for (int which = 0; which < COUNTERS; which++)
        into[which] = __atomic_load_n(&counters[which], __ATOMIC_RELAXED);
}

#define NEXT(name, result, ...) \
    static result (*real)(__VA_ARGS__); \
    if (!real) real = (result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

int fsync(int file) { NEXT("fsync", int, int); add(SYNCS, 1); return real(file); }
int fdatasync(int file) { NEXT("fdatasync", int, int); add(SYNCS, 1); return real(file); }

static ssize_t told(int which, ssize_t size) { if (size > 0) add(which, (uint64_t)size); return size; }

ssize_t write(int file, const void *from, size_t size)
{ NEXT("write", ssize_t, int, const void *, size_t); return told(WRITTEN, real(file, from, size)); }
ssize_t pwrite(int file, const void *from, size_t size, off_t at)
{ NEXT("pwrite", ssize_t, int, const void *, size_t, off_t); return told(WRITTEN, real(file, from, size, at)); }
ssize_t pwrite64(int file, const void *from, size_t size, off64_t at)
{ NEXT("pwrite64", ssize_t, int, const void *, size_t, off64_t); return told(WRITTEN, real(file, from, size, at)); }
ssize_t writev(int file, const struct iovec *from, int count)
{ NEXT("writev", ssize_t, int, const struct iovec *, int); return told(WRITTEN, real(file, from, count)); }
ssize_t pwritev(int file, const struct iovec *from, int count, off_t at)
{ NEXT("pwritev", ssize_t, int, const struct iovec *, int, off_t); return told(WRITTEN, real(file, from, count, at)); }
ssize_t pwritev2(int file, const struct iovec *from, int count, off_t at, int flags)
{
    NEXT("pwritev2", ssize_t, int, const struct iovec *, int, off_t, int);
    return told(WRITTEN, real(file, from, count, at, flags));
}
ssize_t pwritev64(int file, const struct iovec *from, int count, off64_t at)
{ NEXT("pwritev64", ssize_t, int, const struct iovec *, int, off64_t); return told(WRITTEN, real(file, from, count, at)); }
ssize_t pwritev64v2(int file, const struct iovec *from, int count, off64_t at, int flags)
{
    NEXT("pwritev64v2", ssize_t, int, const struct iovec *, int, off64_t, int);
    return told(WRITTEN, real(file, from, count, at, flags));
}
ssize_t read(int file, void *into, size_t size)
{ NEXT("read", ssize_t, int, void *, size_t); return told(READ, real(file, into, size)); }
ssize_t pread(int file, void *into, size_t size, off_t at)
{ NEXT("pread", ssize_t, int, void *, size_t, off_t); return told(READ, real(file, into, size, at)); }
ssize_t pread64(int file, void *into, size_t size, off64_t at)
{ NEXT("pread64", ssize_t, int, void *, size_t, off64_t); return told(READ, real(file, into, size, at)); }
ssize_t readv(int file, const struct iovec *into, int count)
{ NEXT("readv", ssize_t, int, const struct iovec *, int); return told(READ, real(file, into, count)); }
ssize_t preadv(int file, const struct iovec *into, int count, off_t at)
{ NEXT("preadv", ssize_t, int, const struct iovec *, int, off_t); return told(READ, real(file, into, count, at)); }
ssize_t preadv64(int file, const struct iovec *into, int count, off64_t at)
{ NEXT("preadv64", ssize_t, int, const struct iovec *, int, off64_t); return told(READ, real(file, into, count, at)); }
ssize_t preadv2(int file, const struct iovec *into, int count, off_t at, int flags)
{
    NEXT("preadv2", ssize_t, int, const struct iovec *, int, off_t, int);
    return told(READ, real(file, into, count, at, flags));
}
ssize_t preadv64v2(int file, const struct iovec *into, int count, off64_t at, int flags)
{
    NEXT("preadv64v2", ssize_t, int, const struct iovec *, int, off64_t, int);
    return told(READ, real(file, into, count, at, flags));
}
/* From a file, to what goes to another pod; from a pipe there is no place to read at. */
ssize_t splice(int file, off64_t *at, int into, off64_t *to, size_t size, unsigned flags)
{
    NEXT("splice", ssize_t, int, off64_t *, int, off64_t *, size_t, unsigned);
    ssize_t moved = real(file, at, into, to, size, flags);
    return at ? told(READ, moved) : moved;
}

static mode_t mode_of(int flags, va_list *more)
{ return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(*more, mode_t) : 0; }

#define OPEN(name) \
    int name(const char *path, int flags, ...) \
    { \
        NEXT(#name, int, const char *, int, ...); \
        va_list more; va_start(more, flags); mode_t mode = mode_of(flags, &more); va_end(more); \
        add(OPENS, 1); \
        return real(path, flags, mode); \
    }
#define OPEN_AT(name) \
    int name(int folder, const char *path, int flags, ...) \
    { \
        NEXT(#name, int, int, const char *, int, ...); \
        va_list more; va_start(more, flags); mode_t mode = mode_of(flags, &more); va_end(more); \
        add(OPENS, 1); \
        return real(folder, path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
OPEN_AT(openat)
OPEN_AT(openat64)

/* The real ones are looked up when the library is loaded: dlsym itself copies. */
static void *(*real_memcpy)(void *, const void *, size_t);
static void *(*real_memmove)(void *, const void *, size_t);

__attribute__((constructor)) static void look_up(void)
{
    real_memmove = (void *(*)(void *, const void *, size_t))dlsym(RTLD_NEXT, "memmove");
    real_memcpy = (void *(*)(void *, const void *, size_t))dlsym(RTLD_NEXT, "memcpy");
}

static void *plainly(void *into, const void *from, size_t size)
{
    volatile char *to = into;
    const volatile char *source = from;
    if ((uintptr_t)to <= (uintptr_t)source)
        for (size_t at = 0; at < size; at++) to[at] = source[at];
    else
        for (size_t at = size; at-- > 0;) to[at] = source[at];
    return into;
}

void *memcpy(void *restrict into, const void *restrict from, size_t size)
{
    if (!real_memcpy) return plainly(into, from, size);
    if (size >= COPY_BYTES) add(COPIED, size);
    return real_memcpy(into, from, size);
}

void *memmove(void *into, const void *from, size_t size)
{
    if (!real_memmove) return plainly(into, from, size);
    if (size >= COPY_BYTES) add(COPIED, size);
    return real_memmove(into, from, size);
}

/* What programs call instead that were compiled with checks of buffers' sizes. */
void *__memcpy_chk(void *into, const void *from, size_t size, size_t room) { (void)room; return memcpy(into, from, size); }
void *__memmove_chk(void *into, const void *from, size_t size, size_t room) { (void)room; return memmove(into, from, size); }
