/* A disk that fails or hangs: preloaded into a pod (LD_PRELOAD), below Python and RocksDB.
 *
 * HOLDFAST_DISK_RULES names a file that the test writes and removes while the pod runs.  One rule per line:
 *
 *     <read|write|sync> <eio|hang> <path prefix>
 *
 * A call of that kind on an open file whose path starts with the prefix fails with EIO, or does not come back as long
 * as its rule stands.  Only calls on open descriptors are seen, which is where reads, writes and fsyncs happen; names
 * (open, rename, unlink, stat) always work.  `failing_disk.py` writes the rules.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define RULES_SIZE 4096

enum verdict { PASS, FAIL, HANG };

static enum verdict judge(const char *kind, int fd) {
    const char *rules_path = getenv("HOLDFAST_DISK_RULES");
    if (!rules_path) return PASS;
    int rules = (int)syscall(SYS_openat, AT_FDCWD, rules_path, O_RDONLY | O_CLOEXEC);
    if (rules < 0) return PASS;
    char text[RULES_SIZE], link[64], path[PATH_MAX];
    long size = syscall(SYS_read, rules, text, sizeof text - 1);
    syscall(SYS_close, rules);
    if (size <= 0) return PASS;
    text[size] = 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = syscall(SYS_readlink, link, path, sizeof path - 1);
    if (length <= 0) return PASS;
    path[length] = 0;
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char rule_kind[16], what[16];
        int at = 0;
        if (sscanf(line, "%15s %15s %n", rule_kind, what, &at) < 2 || !at) continue;
        if (strcmp(rule_kind, kind) || strncmp(path, line + at, strlen(line + at))) continue;
        return strcmp(what, "hang") ? FAIL : HANG;
    }
    return PASS;
}

/* 0: go on; -1: errno is set. */
static int allowed(const char *kind, int fd) {
    int before = errno;
    enum verdict verdict;
    while ((verdict = judge(kind, fd)) == HANG) usleep(20000);
    errno = verdict == FAIL ? EIO : before;
    return verdict == FAIL ? -1 : 0;
}


#define WRAP(kind, type, name, arguments, types, call)      \
    type name arguments {                                    \
        if (allowed(kind, fd)) return -1;                    \
        return ((type (*) types)dlsym(RTLD_NEXT, #name)) call; \
    }

WRAP("sync", int, fsync, (int fd), (int), (fd))
WRAP("sync", int, fdatasync, (int fd), (int), (fd))
WRAP("sync", int, sync_file_range, (int fd, off64_t o, off64_t n, unsigned f), (int, off64_t, off64_t, unsigned), (fd, o, n, f))
WRAP("read", ssize_t, read, (int fd, void *b, size_t n), (int, void *, size_t), (fd, b, n))
WRAP("read", ssize_t, pread, (int fd, void *b, size_t n, off_t o), (int, void *, size_t, off_t), (fd, b, n, o))
WRAP("read", ssize_t, pread64, (int fd, void *b, size_t n, off64_t o), (int, void *, size_t, off64_t), (fd, b, n, o))
WRAP("write", ssize_t, write, (int fd, const void *b, size_t n), (int, const void *, size_t), (fd, b, n))
WRAP("write", ssize_t, pwrite, (int fd, const void *b, size_t n, off_t o), (int, const void *, size_t, off_t), (fd, b, n, o))
WRAP("write", ssize_t, pwrite64, (int fd, const void *b, size_t n, off64_t o), (int, const void *, size_t, off64_t), (fd, b, n, o))
WRAP("write", ssize_t, pwritev, (int fd, const struct iovec *v, int c, off_t o), (int, const struct iovec *, int, off_t), (fd, v, c, o))
WRAP("write", ssize_t, pwritev64, (int fd, const struct iovec *v, int c, off64_t o), (int, const struct iovec *, int, off64_t), (fd, v, c, o))
WRAP("read", ssize_t, readv, (int fd, const struct iovec *v, int c), (int, const struct iovec *, int), (fd, v, c))
WRAP("write", ssize_t, writev, (int fd, const struct iovec *v, int c), (int, const struct iovec *, int), (fd, v, c))
/* Python's own gathered reads and writes, which is how shards are written. */
WRAP("read", ssize_t, preadv2, (int fd, const struct iovec *v, int c, off_t o, int f), (int, const struct iovec *, int, off_t, int), (fd, v, c, o, f))
WRAP("read", ssize_t, preadv64v2, (int fd, const struct iovec *v, int c, off64_t o, int f), (int, const struct iovec *, int, off64_t, int), (fd, v, c, o, f))
WRAP("write", ssize_t, pwritev2, (int fd, const struct iovec *v, int c, off_t o, int f), (int, const struct iovec *, int, off_t, int), (fd, v, c, o, f))
WRAP("write", ssize_t, pwritev64v2, (int fd, const struct iovec *v, int c, off64_t o, int f), (int, const struct iovec *, int, off64_t, int), (fd, v, c, o, f))
WRAP("read", ssize_t, preadv, (int fd, const struct iovec *v, int c, off_t o), (int, const struct iovec *, int, off_t), (fd, v, c, o))
WRAP("read", ssize_t, preadv64, (int fd, const struct iovec *v, int c, off64_t o), (int, const struct iovec *, int, off64_t), (fd, v, c, o))
/* What goes to other pods; `fd` is what is read from. */
WRAP("read", ssize_t, splice, (int fd, off64_t *i, int o, off64_t *p, size_t n, unsigned f), (int, off64_t *, int, off64_t *, size_t, unsigned), (fd, i, o, p, n, f))
