/* A library between a process and libc, for the files below one directory. Loaded with LD_PRELOAD by the tests of power
 * loss and of faults; tests/src/shim.rs compiles it and says what it is to do, by environment:
 *
 *   SHIM_ROOT    the directory whose files it watches, as an absolute path
 *   SHIM_TRACE   the file to which it appends everything that changes them and everything that syncs them (trace.c)
 *   SHIM_FAULT   one call that is to fail (fault.c)
 *
 * One lock is held over each watched call and its record, so that the order in the trace is the order on the disk. */
#ifndef SHIM_H
#define SHIM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Descriptors that a process may have open at a time. */
#define DESCRIPTORS_MAX 4096
#define PATH_BYTES_MAX 4096

struct descriptor {
  enum { NEVER_SEEN, NOT_WATCHED, WATCHED } state;
  uint32_t handle; /* numbers the opens of watched files in the trace */
  ino_t inode;
  char *path;
};

/* trace.c */
void shim_lock(void);
void shim_unlock(void);
/* Whether `path`, which may be relative to the directory `at`, lies below the root; `absolute` receives it whole. */
int shim_is_watched(int at, const char *path, char *absolute);
const char *shim_relative(const char *absolute);
struct descriptor *shim_descriptor(int fd);
void shim_opened(int fd, const char *absolute, int created, int truncated);
void shim_untracked(int fd);
void shim_closed(int fd);
void trace_write(uint32_t handle, uint64_t offset, const void *bytes, size_t count);
void trace_truncate(uint32_t handle, uint64_t length);
void trace_sync(uint32_t handle, int is_data_only, int result);
void trace_forget(uint32_t handle);
/* 'm' mkdir, 'r' rmdir, 'u' unlink, 'n' rename, 'k' mark */
void trace_names(char op, const char *first, const char *second);
_Noreturn void shim_give_up(const char *why, const char *what);

/* fault.c */
enum outcome { AS_ASKED, LOST, KEPT };
void fault_mark(const char *mark);
/* What is to become of this call; `path` is relative to the root. */
enum outcome fault_of(const char *op, const char *path);
/* Ends a call that was to fail: the process dies here, or errno is set and -1 returned. */
int fault_end(void);
int fault_is_configured(void);

/* pages.c: what the disk still holds of pages that were written and not synced */
void pages_before_write(const struct descriptor *file, uint64_t offset, size_t count);
void pages_synced(ino_t inode);
void pages_lost(ino_t inode);
void pages_forget(const struct descriptor *file);

#endif
