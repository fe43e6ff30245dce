/* Which files are watched, and the trace of what happens to them.
 *
 * A record is its length u32 (of all behind it), one letter, and, little-endian:
 *
 *   o  handle u32, created u8, truncated u8, directory u8, path     a watched file was opened
 *   w  handle u32, offset u64, bytes                                written
 *   t  handle u32, length u64                                       cut or extended
 *   s  handle u32, data only u8, result u8                          synced: 0 done, 1 failed and lost, 2 failed but done
 *   f  handle u32                                                   its clean pages were dropped from memory
 *   m, r, u  path                                                   mkdir, rmdir, unlink
 *   n  path, zero, path                                             renamed
 *   k  text                                                         a mark: whoever is watched made the directory mark/<text>
 *
 * Paths are relative to the root. */
#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct descriptor descriptors[DESCRIPTORS_MAX];
static uint32_t handles;
static char root[PATH_BYTES_MAX];
static size_t root_length;
static int trace = -1;

/* Raw calls from here on: the wrappers of this very library stand in front of libc's. */
_Noreturn void shim_give_up(const char *why, const char *what) {
  char line[PATH_BYTES_MAX + 256];
  int length = snprintf(line, sizeof line, "shim: %s: %s\n", why, what);
  syscall(SYS_write, 2, line, (size_t)length);
  _exit(99);
}

__attribute__((constructor)) static void configure(void) {
  const char *path = getenv("SHIM_ROOT");
  if (path == NULL || path[0] != '/') return;
  root_length = (size_t)snprintf(root, sizeof root, "%s", path);
  const char *to = getenv("SHIM_TRACE");
  if (to == NULL) return;
  trace = (int)syscall(SYS_openat, AT_FDCWD, to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (trace < 0) shim_give_up("no trace can be written", to);
}

void shim_lock(void) { pthread_mutex_lock(&lock); }
void shim_unlock(void) { pthread_mutex_unlock(&lock); }

/* The root itself is watched too: its syncs make the names in it safe. */
static int is_below_root(const char *path) {
  return root_length > 0 && strncmp(path, root, root_length) == 0 && (path[root_length] == '/' || path[root_length] == 0);
}

int shim_is_watched(int at, const char *path, char *absolute) {
  if (root_length == 0) return 0;
  int length;
  if (path[0] == '/') {
    length = snprintf(absolute, PATH_BYTES_MAX, "%s", path);
  } else if (at == AT_FDCWD) {
    char cwd[PATH_BYTES_MAX];
    if (syscall(SYS_getcwd, cwd, sizeof cwd) < 0) return 0;
    length = snprintf(absolute, PATH_BYTES_MAX, "%s/%s", cwd, path);
  } else {
    struct descriptor *directory = shim_descriptor(at);
    if (directory == NULL) return 0;
    length = snprintf(absolute, PATH_BYTES_MAX, "%s/%s", directory->path, path);
  }
  if (length >= PATH_BYTES_MAX) shim_give_up("a path is too long", path);
  return is_below_root(absolute);
}

const char *shim_relative(const char *absolute) {
  return absolute[root_length] == 0 ? "" : absolute + root_length + 1; /* the root's own path is empty */
}

struct descriptor *shim_descriptor(int fd) {
  if (fd < 0 || root_length == 0) return NULL;
  if (fd >= DESCRIPTORS_MAX) shim_give_up("too many descriptors", "raise DESCRIPTORS_MAX");
  struct descriptor *found = &descriptors[fd];
  if (found->state == NEVER_SEEN) {
    if (fd <= 2) return NULL; /* what a process says is nothing that it stores */
    /* Opened by libc itself, inherited or duplicated: nothing may slip past. */
    char link[64], path[PATH_BYTES_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlink, link, path, sizeof path - 1);
    if (length > 0) {
      path[length] = 0;
      struct stat stat;
      if (is_below_root(path) && fstat(fd, &stat) == 0 && !S_ISDIR(stat.st_mode) && stat.st_nlink > 0)
        shim_give_up("a watched file is open of which no open was seen", path);
    }
    return NULL;
  }
  return found->state == WATCHED ? found : NULL;
}

static void record(char op, const struct iovec *parts, int count) {
  if (trace < 0) return;
  struct iovec all[8];
  uint32_t length = 1;
  for (int i = 0; i < count; i++) length += (uint32_t)parts[i].iov_len;
  all[0] = (struct iovec){&length, sizeof length};
  all[1] = (struct iovec){&op, 1};
  memcpy(all + 2, parts, sizeof *parts * (size_t)count);
  ssize_t written = syscall(SYS_writev, trace, all, count + 2);
  if (written != (ssize_t)(length + sizeof length)) shim_give_up("the trace cannot be written", strerror(errno));
}

void shim_opened(int fd, const char *absolute, int created, int truncated) {
  if (fd >= DESCRIPTORS_MAX) shim_give_up("too many descriptors", "raise DESCRIPTORS_MAX");
  struct stat stat;
  if (fstat(fd, &stat) != 0) shim_give_up("a file cannot be looked at", absolute);
  struct descriptor *slot = &descriptors[fd];
  free(slot->path);
  *slot = (struct descriptor){WATCHED, ++handles, stat.st_ino, strdup(absolute)};
  unsigned char kinds[3] = {created != 0, truncated != 0, S_ISDIR(stat.st_mode)};
  const char *path = shim_relative(absolute);
  struct iovec parts[] = {{&slot->handle, 4}, {kinds, 3}, {(void *)path, strlen(path)}};
  record('o', parts, 3);
}

void shim_untracked(int fd) {
  if (fd < 0 || fd >= DESCRIPTORS_MAX) return;
  free(descriptors[fd].path);
  descriptors[fd] = (struct descriptor){.state = NOT_WATCHED};
}

void shim_closed(int fd) {
  if (fd < 0 || fd >= DESCRIPTORS_MAX) return;
  free(descriptors[fd].path);
  descriptors[fd] = (struct descriptor){.state = NEVER_SEEN};
}

void trace_write(uint32_t handle, uint64_t offset, const void *bytes, size_t count) {
  struct iovec parts[] = {{&handle, 4}, {&offset, 8}, {(void *)bytes, count}};
  record('w', parts, 3);
}

void trace_truncate(uint32_t handle, uint64_t length) {
  struct iovec parts[] = {{&handle, 4}, {&length, 8}};
  record('t', parts, 2);
}

void trace_sync(uint32_t handle, int is_data_only, int result) {
  unsigned char kinds[2] = {(unsigned char)is_data_only, (unsigned char)result};
  struct iovec parts[] = {{&handle, 4}, {kinds, 2}};
  record('s', parts, 2);
}

void trace_forget(uint32_t handle) {
  struct iovec parts[] = {{&handle, 4}};
  record('f', parts, 1);
}

void trace_names(char op, const char *first, const char *second) {
  struct iovec parts[] = {{(void *)first, strlen(first)}, {"", 1}, {(void *)second, second ? strlen(second) : 0}};
  record(op, parts, second ? 3 : 1);
}
