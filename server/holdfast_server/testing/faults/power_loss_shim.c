/* What a power cut would take away, written down: preloaded into a pod (LD_PRELOAD), below Python and RocksDB.
 *
 * Every call that changes a file or a folder below the watched prefix goes through to the kernel, but before that it
 * is noted in a journal outside: which bytes were there, which size, which name.  An fsync is noted when it begins and
 * when it has ended; what was noted before its beginning is durable then, and nothing else ever is.  A folder's
 * entries are durable after an fsync of that folder only.  `power_loss.py` reads the journal when all processes are
 * dead, and undoes what was not durable.
 *
 * An unlinked or replaced file is kept by a link in the graveyard, so that its name can come back with its bytes and
 * its inode number is not given to another file.
 *
 * The real fsync is left out: only the order of calls matters here, no power fails.  It takes a random moment
 * instead (HOLDFAST_POWER_SYNC_US at most), so that what must not be answered before it has time to go wrong.
 *
 * A way of writing that would pass by unseen (shared writable mappings, sendfile, …) ends the process with a message.
 * stdio is seen when it opens a file, not when it writes: only RocksDB's information log does that.
 *
 * Environment: HOLDFAST_POWER_PREFIX (absolute path, no symlinks), HOLDFAST_POWER_FOLDER (of the journal),
 * HOLDFAST_POWER_GRAVE (the graveyard, on the same file system as what is watched), HOLDFAST_POWER_SYNC_US.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { WRITE = 1, SIZE, SYNC_BEGIN, SYNC_END, CREATE, UNLINK, RENAME, MAKE_FOLDER, REMOVE_FOLDER, LINK };

struct event {
    uint32_t magic, kind;
    uint64_t inode, a, b, c;
    uint32_t first_size, second_size;
};

#define MAGIC 0x314c5748u /* HWL1 */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;
static char prefix[PATH_MAX], folder[PATH_MAX], graveyard[PATH_MAX];
static size_t prefix_size;
static int journal = -1;
static unsigned sync_us;
static uint64_t last_token;

static void die(const char *what, const char *path) {
    char line[PATH_MAX + 100];
    int size = snprintf(line, sizeof line, "power_loss_shim: %s (%s)\n", what, path);
    syscall(SYS_write, 2, line, (size_t)size);
    abort();
}

static void set_up(void) {
    const char *p = getenv("HOLDFAST_POWER_PREFIX"), *f = getenv("HOLDFAST_POWER_FOLDER");
    const char *g = getenv("HOLDFAST_POWER_GRAVE"), *us = getenv("HOLDFAST_POWER_SYNC_US");
    if (!p || !f || !g) return;
    snprintf(prefix, sizeof prefix, "%s", p);
    snprintf(folder, sizeof folder, "%s", f);
    snprintf(graveyard, sizeof graveyard, "%s", g);
    sync_us = us ? (unsigned)atoi(us) : 0;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    char path[PATH_MAX + 64];
    snprintf(path, sizeof path, "%s/journal.%020llu", folder,
             (unsigned long long)now.tv_sec * 1000000000ull + (unsigned long long)now.tv_nsec);
    journal = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_EXCL | O_CLOEXEC, 0644);
    if (journal < 0) die("no journal", path);
    /* Away from the numbers that programs expect to get. */
    int high = fcntl(journal, F_DUPFD_CLOEXEC, 900);
    if (high >= 0) { syscall(SYS_close, journal); journal = high; }
    prefix_size = strlen(prefix);
}

static int watching(void) {
    pthread_once(&once, set_up);
    return prefix_size != 0;
}

static void note(uint32_t kind, uint64_t inode, uint64_t a, uint64_t b, uint64_t c, const void *first,
                 size_t first_size, const void *second, size_t second_size) {
    struct event event = {MAGIC, kind, inode, a, b, c, (uint32_t)first_size, (uint32_t)second_size};
    struct iovec parts[3] = {{&event, sizeof event}, {(void *)first, first_size}, {(void *)second, second_size}};
    ssize_t done = syscall(SYS_writev, journal, parts, 3);
    if (done != (ssize_t)(sizeof event + first_size + second_size)) die("the journal cannot be written", folder);
}

static void note_path(uint32_t kind, uint64_t inode, uint64_t a, const char *path) {
    note(kind, inode, a, 0, 0, path, strlen(path), NULL, 0);
}

/* --- which files are watched */

static int is_watched(const char *path) { return strncmp(path, prefix, prefix_size) == 0; }

static int path_of(int descriptor, char *out) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t size = syscall(SYS_readlinkat, AT_FDCWD, link, out, PATH_MAX - 1);
    if (size < 0) return 0;
    out[size] = 0;
    return 1;
}

/* The absolute path without doubled slashes; 1 if it is watched. */
static int watched_path(int at, const char *path, char *out) {
    if (!watching() || !path) return 0;
    char whole[2 * PATH_MAX];
    if (strncmp(path, "/proc/self/fd/", 14) == 0) {
        /* Drives name their files through a descriptor of their folder. */
        char start[PATH_MAX], *rest;
        long held = strtol(path + 14, &rest, 10);
        if (!path_of((int)held, start)) return 0;
        snprintf(whole, sizeof whole, "%s%s", start, rest);
    } else if (path[0] == '/') {
        snprintf(whole, sizeof whole, "%s", path);
    } else {
        char start[PATH_MAX];
        if (at == AT_FDCWD) {
            if (!getcwd(start, sizeof start)) return 0;
        } else if (!path_of(at, start)) {
            return 0;
        }
        snprintf(whole, sizeof whole, "%s/%s", start, path);
    }
    size_t n = 0;
    for (const char *c = whole; *c && n < PATH_MAX - 1; c++) {
        if (*c == '/' && n && out[n - 1] == '/') continue;
        if (*c == '.' && n && out[n - 1] == '/' && (c[1] == '/' || !c[1])) continue;
        out[n++] = *c;
    }
    while (n > 1 && out[n - 1] == '/') n--;
    out[n] = 0;
    if (!is_watched(out)) return 0;
    if (strstr(out, "/../")) die("a path with ..", out);
    return 1;
}

static int watched_file(int descriptor, struct stat *facts, char *path, int folders_too) {
    if (!watching() || descriptor == journal) return 0;
    if (syscall(SYS_fstat, descriptor, facts) != 0) return 0;
    if (!S_ISREG(facts->st_mode) && !(folders_too && S_ISDIR(facts->st_mode))) return 0;
    return path_of(descriptor, path) && is_watched(path);
}

static int look(const char *path, struct stat *facts) {
    return (int)syscall(SYS_newfstatat, AT_FDCWD, path, facts, AT_SYMLINK_NOFOLLOW);
}

static void bury(const char *path, uint64_t inode) {
    char grave[PATH_MAX + 64];
    snprintf(grave, sizeof grave, "%s/%llu", graveyard, (unsigned long long)inode);
    if (syscall(SYS_linkat, AT_FDCWD, path, AT_FDCWD, grave, 0) != 0 && errno != EEXIST && errno != ENOENT)
        die("a removed file cannot be kept", path);
}

/* --- bytes */

static void note_bytes(uint32_t kind, int descriptor, const struct stat *facts, uint64_t offset, uint64_t size,
                       uint64_t keep_from, uint64_t keep_to) {
    char *old = NULL;
    size_t kept = 0;
    if (keep_to > keep_from) {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
        int reader = (int)syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC, 0);
        old = malloc(keep_to - keep_from);
        if (reader < 0 || !old) die("old bytes cannot be read", link);
        while (kept < keep_to - keep_from) {
            ssize_t got = syscall(SYS_pread64, reader, old + kept, keep_to - keep_from - kept, keep_from + kept);
            if (got <= 0) break;
            kept += (size_t)got;
        }
        syscall(SYS_close, reader);
    }
    note(kind, facts->st_ino, offset, size, (uint64_t)facts->st_size, old, kept, NULL, 0);
    free(old);
}

static void note_write(int descriptor, int64_t offset, uint64_t size) {
    struct stat facts;
    syscall(SYS_fstat, descriptor, &facts);
    if (offset < 0)
        offset = fcntl(descriptor, F_GETFL) & O_APPEND ? facts.st_size : syscall(SYS_lseek, descriptor, 0, SEEK_CUR);
    uint64_t end = (uint64_t)offset + size, old_size = (uint64_t)facts.st_size;
    note_bytes(WRITE, descriptor, &facts, (uint64_t)offset, size, (uint64_t)offset, end < old_size ? end : old_size);
}

static void note_size(int descriptor, uint64_t size) {
    struct stat facts;
    syscall(SYS_fstat, descriptor, &facts);
    note_bytes(SIZE, descriptor, &facts, size, 0, size, (uint64_t)facts.st_size);
}

static uint64_t total(const struct iovec *parts, int count) {
    uint64_t sum = 0;
    for (int i = 0; i < count; i++) sum += parts[i].iov_len;
    return sum;
}

#define WITH_WRITE(descriptor, offset, size, call)                         \
    do {                                                                   \
        struct stat facts_;                                                \
        char path_[PATH_MAX];                                              \
        if (!watched_file(descriptor, &facts_, path_, 0)) return call;     \
        pthread_mutex_lock(&order);                                        \
        note_write(descriptor, offset, size);                              \
        ssize_t done_ = call;                                              \
        int error_ = errno;                                                \
        pthread_mutex_unlock(&order);                                      \
        errno = error_;                                                    \
        return done_;                                                      \
    } while (0)

ssize_t write(int d, const void *buffer, size_t size) { WITH_WRITE(d, -1, size, syscall(SYS_write, d, buffer, size)); }
ssize_t writev(int d, const struct iovec *p, int n) { WITH_WRITE(d, -1, total(p, n), syscall(SYS_writev, d, p, n)); }
ssize_t pwrite64(int d, const void *buffer, size_t size, off64_t at) {
    WITH_WRITE(d, at, size, syscall(SYS_pwrite64, d, buffer, size, at));
}
ssize_t pwrite(int d, const void *buffer, size_t size, off_t at) { return pwrite64(d, buffer, size, at); }
/* The kernel takes an offset in two halves here, the second is for machines with small words. */
ssize_t pwritev64(int d, const struct iovec *p, int n, off64_t at) {
    WITH_WRITE(d, at, total(p, n), syscall(SYS_pwritev, d, p, (long)n, at, 0L));
}
ssize_t pwritev(int d, const struct iovec *p, int n, off_t at) { return pwritev64(d, p, n, at); }
ssize_t pwritev64v2(int d, const struct iovec *p, int n, off64_t at, int flags) {
    WITH_WRITE(d, at, total(p, n), syscall(SYS_pwritev2, d, p, (long)n, at, 0L, flags));
}
ssize_t pwritev2(int d, const struct iovec *p, int n, off_t at, int f) { return pwritev64v2(d, p, n, at, f); }

int ftruncate64(int d, off64_t size) {
    struct stat facts;
    char path[PATH_MAX];
    if (!watched_file(d, &facts, path, 0)) return (int)syscall(SYS_ftruncate, d, size);
    pthread_mutex_lock(&order);
    note_size(d, (uint64_t)size);
    int done = (int)syscall(SYS_ftruncate, d, size), error = errno;
    pthread_mutex_unlock(&order);
    errno = error;
    return done;
}
int ftruncate(int d, off_t size) { return ftruncate64(d, size); }
int truncate64(const char *path, off64_t size) {
    char whole[PATH_MAX];
    if (!watched_path(AT_FDCWD, path, whole)) return (int)syscall(SYS_truncate, path, size);
    int d = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
    if (d < 0) return -1;
    int done = ftruncate64(d, size), error = errno;
    syscall(SYS_close, d);
    errno = error;
    return done;
}
int truncate(const char *path, off_t size) { return truncate64(path, size); }

int fallocate64(int d, int mode, off64_t at, off64_t size) {
    struct stat facts;
    char path[PATH_MAX];
    if (!watched_file(d, &facts, path, 0) || mode == FALLOC_FL_KEEP_SIZE)
        return (int)syscall(SYS_fallocate, d, mode, at, size);
    if (mode) die("fallocate that changes bytes", path);
    pthread_mutex_lock(&order);
    note_size(d, (uint64_t)(at + size) > (uint64_t)facts.st_size ? (uint64_t)(at + size) : (uint64_t)facts.st_size);
    int done = (int)syscall(SYS_fallocate, d, mode, at, size), error = errno;
    pthread_mutex_unlock(&order);
    errno = error;
    return done;
}
int fallocate(int d, int mode, off_t at, off_t size) { return fallocate64(d, mode, at, size); }
int posix_fallocate64(int d, off64_t at, off64_t size) { return fallocate64(d, 0, at, size) ? errno : 0; }
int posix_fallocate(int d, off_t at, off_t size) { return posix_fallocate64(d, at, size); }

/* --- what makes durable */

static int sync_watched(int d, long number) {
    struct stat facts;
    char path[PATH_MAX];
    if (!watched_file(d, &facts, path, 1)) return (int)syscall(number, d);
    pthread_mutex_lock(&order);
    uint64_t token = ++last_token;
    note_path(SYNC_BEGIN, S_ISDIR(facts.st_mode) ? 0 : facts.st_ino, token, path);
    pthread_mutex_unlock(&order);
    if (sync_us) usleep((useconds_t)((token * 2654435761u >> 8) % sync_us));
    pthread_mutex_lock(&order);
    note_path(SYNC_END, S_ISDIR(facts.st_mode) ? 0 : facts.st_ino, token, path);
    pthread_mutex_unlock(&order);
    return 0;
}
int fsync(int d) { return sync_watched(d, SYS_fsync); }
int fdatasync(int d) { return sync_watched(d, SYS_fdatasync); }
/* No promise: says when to start writing, not what is durable. */
int sync_file_range(int d, off64_t at, off64_t size, unsigned flags) {
    return (int)syscall(SYS_sync_file_range, d, at, size, flags);
}

/* --- names */

static int open_watched(int at, const char *path, int flags, mode_t mode) {
    char whole[PATH_MAX];
    if (!(flags & (O_CREAT | O_TRUNC)) || !watched_path(at, path, whole))
        return (int)syscall(SYS_openat, at, path, flags, mode);
    if ((flags & O_TMPFILE) == O_TMPFILE) die("O_TMPFILE", whole);
    pthread_mutex_lock(&order);
    struct stat facts;
    if (look(whole, &facts) != 0) {
        if (flags & O_CREAT) note_path(CREATE, 0, 0, whole);
    } else if ((flags & O_TRUNC) && !(flags & O_EXCL) && facts.st_size) {
        int d = (int)syscall(SYS_openat, at, path, O_RDONLY | O_CLOEXEC, 0);
        if (d >= 0) { note_size(d, 0); syscall(SYS_close, d); }
    }
    int done = (int)syscall(SYS_openat, at, path, flags, mode), error = errno;
    pthread_mutex_unlock(&order);
    errno = error;
    return done;
}

#define MODE(flags)                                             \
    mode_t mode = 0;                                            \
    if (((flags) & O_CREAT) || ((flags) & O_TMPFILE) == O_TMPFILE) { \
        va_list more;                                           \
        va_start(more, flags);                                  \
        mode = va_arg(more, mode_t);                            \
        va_end(more);                                           \
    }

int open(const char *path, int flags, ...) { MODE(flags) return open_watched(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return open_watched(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE(flags) return open_watched(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags) return open_watched(at, path, flags, mode); }
int creat(const char *path, mode_t mode) { return open_watched(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

static FILE *fopen_watched(const char *path, const char *mode, const char *name) {
    FILE *(*real)(const char *, const char *) = dlsym(RTLD_NEXT, name);
    char whole[PATH_MAX];
    struct stat facts;
    if ((mode[0] == 'w' || mode[0] == 'a') && watched_path(AT_FDCWD, path, whole) && look(whole, &facts) != 0) {
        pthread_mutex_lock(&order);
        note_path(CREATE, 0, 0, whole);
        pthread_mutex_unlock(&order);
    }
    return real(path, mode);
}
FILE *fopen(const char *path, const char *mode) { return fopen_watched(path, mode, "fopen"); }
FILE *fopen64(const char *path, const char *mode) { return fopen_watched(path, mode, "fopen64"); }

int unlinkat(int at, const char *path, int flags) {
    char whole[PATH_MAX];
    struct stat facts;
    if (!watched_path(at, path, whole)) return (int)syscall(SYS_unlinkat, at, path, flags);
    pthread_mutex_lock(&order);
    if (look(whole, &facts) == 0) {
        if (flags & AT_REMOVEDIR) {
            note_path(REMOVE_FOLDER, 0, 0, whole);
        } else if (S_ISREG(facts.st_mode)) {
            bury(whole, facts.st_ino);
            note_path(UNLINK, facts.st_ino, 0, whole);
        }
    }
    int done = (int)syscall(SYS_unlinkat, at, path, flags), error = errno;
    pthread_mutex_unlock(&order);
    errno = error;
    return done;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char *path) {
    struct stat facts;
    return unlinkat(AT_FDCWD, path, look(path, &facts) == 0 && S_ISDIR(facts.st_mode) ? AT_REMOVEDIR : 0);
}

int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    char source[PATH_MAX], target[PATH_MAX];
    struct stat facts, replaced;
    int from_watched = watched_path(from_at, from, source), to_watched = watched_path(to_at, to, target);
    if (!from_watched && !to_watched) return (int)syscall(SYS_renameat2, from_at, from, to_at, to, flags);
    if (!from_watched || !to_watched || flags) die("a rename out of, or into, what is watched", from);
    pthread_mutex_lock(&order);
    if (look(source, &facts) == 0) {
        if (S_ISDIR(facts.st_mode)) die("a folder renamed", source);
        uint64_t old = 0;
        if (look(target, &replaced) == 0 && replaced.st_ino != facts.st_ino) {
            old = replaced.st_ino;
            bury(target, old);
        }
        note(RENAME, facts.st_ino, old, 0, 0, source, strlen(source), target, strlen(target));
    }
    int done = (int)syscall(SYS_renameat2, from_at, from, to_at, to, flags), error = errno;
    pthread_mutex_unlock(&order);
    errno = error;
    return done;
}
int renameat(int fa, const char *from, int ta, const char *to) { return renameat2(fa, from, ta, to, 0); }
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int linkat(int from_at, const char *from, int to_at, const char *to, int flags) {
    char target[PATH_MAX];
    struct stat facts;
    if (!watched_path(to_at, to, target)) return (int)syscall(SYS_linkat, from_at, from, to_at, to, flags);
    pthread_mutex_lock(&order);
    if (look(target, &facts) != 0) note_path(LINK, 0, 0, target);
    int done = (int)syscall(SYS_linkat, from_at, from, to_at, to, flags), error = errno;
    pthread_mutex_unlock(&order);
    errno = error;
    return done;
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int mkdirat(int at, const char *path, mode_t mode) {
    char whole[PATH_MAX];
    struct stat facts;
    if (!watched_path(at, path, whole)) return (int)syscall(SYS_mkdirat, at, path, mode);
    pthread_mutex_lock(&order);
    if (look(whole, &facts) != 0) note_path(MAKE_FOLDER, 0, 0, whole);
    int done = (int)syscall(SYS_mkdirat, at, path, mode), error = errno;
    pthread_mutex_unlock(&order);
    errno = error;
    return done;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

/* --- what would pass by unseen */

static void refuse(int descriptor, const char *what) {
    struct stat facts;
    char path[PATH_MAX];
    if (watched_file(descriptor, &facts, path, 0)) die(what, path);
}

void *mmap64(void *address, size_t size, int protection, int flags, int d, off64_t at) {
    if (d >= 0 && !(flags & MAP_ANONYMOUS) && (flags & MAP_SHARED) && (protection & PROT_WRITE))
        refuse(d, "a shared writable mapping");
    return (void *)syscall(SYS_mmap, address, size, protection, flags, d, at);
}
void *mmap(void *address, size_t size, int protection, int flags, int d, off_t at) {
    return mmap64(address, size, protection, flags, d, at);
}
ssize_t sendfile64(int out, int in, off64_t *at, size_t size) {
    refuse(out, "sendfile");
    return syscall(SYS_sendfile, out, in, at, size);
}
ssize_t sendfile(int out, int in, off_t *at, size_t size) { return sendfile64(out, in, at, size); }
ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t size, unsigned flags) {
    refuse(out, "copy_file_range");
    return syscall(SYS_copy_file_range, in, in_at, out, out_at, size, flags);
}
ssize_t splice(int in, off64_t *in_at, int out, off64_t *out_at, size_t size, unsigned flags) {
    refuse(out, "splice");
    return syscall(SYS_splice, in, in_at, out, out_at, size, flags);
}
int symlinkat(const char *target, int at, const char *path) {
    char whole[PATH_MAX];
    if (watched_path(at, path, whole)) die("a symbolic link", whole);
    return (int)syscall(SYS_symlinkat, target, at, path);
}
int symlink(const char *target, const char *path) { return symlinkat(target, AT_FDCWD, path); }
int syncfs(int d) {
    refuse(d, "syncfs");
    return (int)syscall(SYS_syncfs, d);
}
