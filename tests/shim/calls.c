/* libc's calls that change or sync files, in front of libc's own. */
#define _GNU_SOURCE
#include "shim.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* Calls the system as libc would: -1 and errno. */
#define SYSTEM(number, ...) ((int)syscall(number, __VA_ARGS__))

static int open_watched(int at, const char *path, int flags, mode_t mode, const char *absolute) {
  struct stat stat;
  int is_there = SYSTEM(SYS_newfstatat, at, path, &stat, 0) == 0;
  int is_created = !is_there && (flags & O_CREAT);
  int is_cut = is_there && (flags & O_TRUNC) && stat.st_size > 0;
  enum outcome outcome = is_created ? fault_of("create", shim_relative(absolute)) : AS_ASKED;
  if (outcome == LOST) return fault_end();
  int fd = SYSTEM(SYS_openat, at, path, flags, mode);
  if (fd < 0) return fd;
  shim_opened(fd, absolute, is_created, is_cut);
  if (outcome == KEPT) {
    shim_closed(fd);
    (void)SYSTEM(SYS_close, fd);
    return fault_end();
  }
  return fd;
}

static int open_at(int at, const char *path, int flags, mode_t mode) {
  char absolute[PATH_BYTES_MAX];
  int is_nameless = (flags & O_TMPFILE) == O_TMPFILE;
  shim_lock();
  int fd;
  if (!is_nameless && shim_is_watched(at, path, absolute)) {
    fd = open_watched(at, path, flags, mode, absolute);
  } else {
    fd = SYSTEM(SYS_openat, at, path, flags, mode);
    shim_untracked(fd);
  }
  shim_unlock();
  return fd;
}

#define MODE_OF(last)                                                                                        \
  mode_t mode = 0;                                                                                           \
  if ((flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE) {                                               \
    va_list more;                                                                                            \
    va_start(more, last);                                                                                    \
    mode = va_arg(more, mode_t);                                                                             \
    va_end(more);                                                                                            \
  }

int open(const char *path, int flags, ...) {
  MODE_OF(flags)
  return open_at(AT_FDCWD, path, flags, mode);
}
int openat(int at, const char *path, int flags, ...) {
  MODE_OF(flags)
  return open_at(at, path, flags, mode);
}
int open64(const char *path, int flags, ...) {
  MODE_OF(flags)
  return open_at(AT_FDCWD, path, flags, mode);
}
int openat64(int at, const char *path, int flags, ...) {
  MODE_OF(flags)
  return open_at(at, path, flags, mode);
}
int creat(const char *path, mode_t mode) {
  return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

int close(int fd) {
  shim_lock();
  shim_closed(fd);
  int result = SYSTEM(SYS_close, fd);
  shim_unlock();
  return result;
}

/* Writes one piece at an offset, or at the descriptor's own place if that is negative. */
static ssize_t write_at(int fd, const void *bytes, size_t count, off_t offset) {
  shim_lock();
  struct descriptor *file = shim_descriptor(fd);
  if (file == NULL) {
    shim_unlock(); /* a write to a socket or a pipe may wait */
    return offset < 0 ? syscall(SYS_write, fd, bytes, count) : syscall(SYS_pwrite64, fd, bytes, count, offset);
  }
  off_t start = offset;
  if (start < 0) {
    int is_append = SYSTEM(SYS_fcntl, fd, F_GETFL) & O_APPEND;
    start = (off_t)syscall(SYS_lseek, fd, 0, is_append ? SEEK_END : SEEK_CUR);
  }
  enum outcome outcome = fault_of("write", shim_relative(file->path));
  ssize_t written;
  if (outcome == LOST) {
    written = fault_end();
  } else {
    pages_before_write(file, (uint64_t)start, count);
    written = offset < 0 ? syscall(SYS_write, fd, bytes, count) : syscall(SYS_pwrite64, fd, bytes, count, offset);
    if (written > 0) trace_write(file->handle, (uint64_t)start, bytes, (size_t)written);
    if (outcome == KEPT) written = fault_end();
  }
  shim_unlock();
  return written;
}

ssize_t write(int fd, const void *bytes, size_t count) { return write_at(fd, bytes, count, -1); }
ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) { return write_at(fd, bytes, count, offset); }
ssize_t pwrite64(int fd, const void *bytes, size_t count, off_t offset) { return write_at(fd, bytes, count, offset); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
  shim_lock();
  int is_watched = shim_descriptor(fd) != NULL;
  shim_unlock();
  if (!is_watched) return syscall(SYS_writev, fd, parts, count);
  /* A short write is an answer that every caller has to know. */
  for (int i = 0; i < count; i++)
    if (parts[i].iov_len > 0) return write_at(fd, parts[i].iov_base, parts[i].iov_len, -1);
  return 0;
}

/* Copies inside the system: whoever tries falls back to reading and writing, which is seen. */
static ssize_t copy_refused(int out) {
  shim_lock();
  int is_watched = shim_descriptor(out) != NULL;
  shim_unlock();
  if (is_watched) errno = ENOSYS;
  return is_watched;
}
ssize_t copy_file_range(int in, off_t *in_at, int out, off_t *out_at, size_t count, unsigned flags) {
  if (copy_refused(out)) return -1;
  return syscall(SYS_copy_file_range, in, in_at, out, out_at, count, flags);
}
ssize_t sendfile(int out, int in, off_t *offset, size_t count) {
  if (copy_refused(out)) return -1;
  return syscall(SYS_sendfile, out, in, offset, count);
}
ssize_t sendfile64(int out, int in, off_t *offset, size_t count) { return sendfile(out, in, offset, count); }

int ftruncate(int fd, off_t length) {
  shim_lock();
  struct descriptor *file = shim_descriptor(fd);
  enum outcome outcome = file ? fault_of("truncate", shim_relative(file->path)) : AS_ASKED;
  int result = outcome == LOST ? 0 : SYSTEM(SYS_ftruncate, fd, length);
  if (file && result == 0 && outcome != LOST) trace_truncate(file->handle, (uint64_t)length);
  if (outcome != AS_ASKED) result = fault_end();
  shim_unlock();
  return result;
}
int ftruncate64(int fd, off_t length) { return ftruncate(fd, length); }

static int space_taken(int fd, off_t offset, off_t count) {
  shim_lock();
  struct descriptor *file = shim_descriptor(fd);
  if (file != NULL) shim_give_up("space was taken ahead, which is not recorded", file->path);
  shim_unlock();
  return SYSTEM(SYS_fallocate, fd, 0, offset, count);
}
int posix_fallocate(int fd, off_t offset, off_t count) { return space_taken(fd, offset, count) ? errno : 0; }
int posix_fallocate64(int fd, off_t offset, off_t count) { return posix_fallocate(fd, offset, count); }

static int sync_with(int fd, long number, const char *op) {
  shim_lock();
  struct descriptor *file = shim_descriptor(fd);
  int result;
  if (file == NULL) {
    result = SYSTEM(number, fd);
  } else {
    enum outcome outcome = fault_of(op, shim_relative(file->path));
    /* Nobody's power fails here: what would be on the disk is for the trace to say. */
    trace_sync(file->handle, number == SYS_fdatasync, outcome);
    if (outcome == LOST) pages_lost(file->inode);
    else pages_synced(file->inode);
    result = outcome == AS_ASKED ? 0 : fault_end();
  }
  shim_unlock();
  return result;
}
int fsync(int fd) { return sync_with(fd, SYS_fsync, "fsync"); }
int fdatasync(int fd) { return sync_with(fd, SYS_fdatasync, "fdatasync"); }

/* Starts writing back and waits, and makes nothing durable: neither the file's length nor the disk's own memory. */
int sync_file_range(int fd, off_t offset, off_t count, unsigned flags) {
  shim_lock();
  struct descriptor *file = shim_descriptor(fd);
  enum outcome outcome = file ? fault_of("range", shim_relative(file->path)) : AS_ASKED;
  int result = outcome != AS_ASKED ? fault_end() : file ? 0 : SYSTEM(SYS_sync_file_range, fd, offset, count, flags);
  shim_unlock();
  return result;
}

int posix_fadvise(int fd, off_t offset, off_t count, int advice) {
  shim_lock();
  struct descriptor *file = shim_descriptor(fd);
  if (file && advice == POSIX_FADV_DONTNEED) {
    pages_forget(file);
    trace_forget(file->handle);
  }
  shim_unlock();
  return SYSTEM(SYS_fadvise64, fd, offset, count, advice) ? errno : 0;
}
int posix_fadvise64(int fd, off_t offset, off_t count, int advice) { return posix_fadvise(fd, offset, count, advice); }

/* One change of one name: mkdir, rmdir or unlink. */
static int change_name(char op, const char *call, int at, const char *path, long number, long last) {
  char absolute[PATH_BYTES_MAX];
  shim_lock();
  int result;
  if (shim_is_watched(at, path, absolute)) {
    const char *relative = shim_relative(absolute);
    if (op == 'm' && strncmp(relative, "mark/", 5) == 0) {
      trace_names('k', relative + 5, NULL);
      fault_mark(relative + 5);
      shim_unlock();
      return 0;
    }
    enum outcome outcome = fault_of(call, relative);
    result = outcome == LOST ? 0 : SYSTEM(number, at, path, last);
    if (result == 0 && outcome != LOST) trace_names(op, relative, NULL);
    if (outcome != AS_ASKED) result = fault_end();
  } else {
    result = SYSTEM(number, at, path, last);
  }
  shim_unlock();
  return result;
}
int mkdir(const char *path, mode_t mode) { return change_name('m', "mkdir", AT_FDCWD, path, SYS_mkdirat, mode); }
int mkdirat(int at, const char *path, mode_t mode) { return change_name('m', "mkdir", at, path, SYS_mkdirat, mode); }
int unlinkat(int at, const char *path, int flags) {
  int is_dir = (flags & AT_REMOVEDIR) != 0;
  return change_name(is_dir ? 'r' : 'u', is_dir ? "rmdir" : "unlink", at, path, SYS_unlinkat, flags);
}
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }

int renameat(int from_at, const char *from, int to_at, const char *to) {
  char from_absolute[PATH_BYTES_MAX], to_absolute[PATH_BYTES_MAX];
  shim_lock();
  int is_from = shim_is_watched(from_at, from, from_absolute), is_to = shim_is_watched(to_at, to, to_absolute);
  if (is_from != is_to) shim_give_up("a file was moved over the root's border", from);
  enum outcome outcome = is_from ? fault_of("rename", shim_relative(from_absolute)) : AS_ASKED;
  int result = outcome == LOST ? 0 : SYSTEM(SYS_renameat, from_at, from, to_at, to);
  if (is_from && result == 0 && outcome != LOST)
    trace_names('n', shim_relative(from_absolute), shim_relative(to_absolute));
  if (outcome != AS_ASKED) result = fault_end();
  shim_unlock();
  return result;
}
int rename(const char *from, const char *to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }

int linkat(int from_at, const char *from, int to_at, const char *to, int flags) {
  char absolute[PATH_BYTES_MAX];
  shim_lock();
  if (shim_is_watched(to_at, to, absolute)) shim_give_up("a second name was made, which is not recorded", to);
  shim_unlock();
  return SYSTEM(SYS_linkat, from_at, from, to_at, to, flags);
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }
