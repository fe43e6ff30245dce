/* One call that fails. SHIM_FAULT is, in this order and separated by bars:
 *
 *   mark     counting begins once this mark was made; empty: at once; an absolute path: once there is such a file
 *   call     create, write, truncate, fsync, fdatasync, range (sync_file_range), mkdir, rmdir, unlink, rename
 *   pattern  of the path below the root, as fnmatch takes it
 *   number   which of these calls, from 1 on; 0: each of them
 *   error    EIO or ENOSPC
 *   fate     lost: nothing was done; kept: it was done all the same
 *   end      crash: the process is killed then; go: the call fails and life goes on */
#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static char text[PATH_BYTES_MAX];
static char *mark, *call, *pattern;
static unsigned long number, seen;
static int is_configured, is_counting, error;
static enum outcome fate;
static int is_crash;

__attribute__((constructor)) static void configure(void) {
  const char *given = getenv("SHIM_FAULT");
  if (given == NULL || given[0] == 0) return;
  snprintf(text, sizeof text, "%s", given);
  char *fields[7];
  char *rest = text;
  for (int i = 0; i < 7; i++) {
    fields[i] = strsep(&rest, "|");
    if (fields[i] == NULL) shim_give_up("SHIM_FAULT has seven fields", given);
  }
  mark = fields[0], call = fields[1], pattern = fields[2];
  number = strtoul(fields[3], NULL, 10);
  error = strcmp(fields[4], "ENOSPC") == 0 ? ENOSPC : EIO;
  fate = strcmp(fields[5], "lost") == 0 ? LOST : KEPT;
  is_crash = strcmp(fields[6], "crash") == 0;
  is_counting = mark[0] == 0;
  is_configured = 1;
}

/* SHIM_HUGE_PAGES=none: the process gets none. */
__attribute__((constructor)) static void give_up_huge_pages(void) {
  if (getenv("SHIM_HUGE_PAGES") != NULL && prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0)
    shim_give_up("PR_SET_THP_DISABLE", strerror(errno));
}

int fault_is_configured(void) { return is_configured; }

void fault_mark(const char *made) {
  if (is_configured && strcmp(mark, made) == 0) is_counting = 1;
}

enum outcome fault_of(const char *op, const char *path) {
  if (is_configured && !is_counting && mark[0] == '/') is_counting = syscall(SYS_faccessat, AT_FDCWD, mark, F_OK) == 0;
  if (!is_counting || strcmp(op, call) != 0 || fnmatch(pattern, path, 0) != 0) return AS_ASKED;
  seen++;
  if (number != 0 && seen != number) return AS_ASKED;
  trace_names('k', "fault", NULL);
  return fate;
}

int fault_end(void) {
  if (is_crash) {
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
  }
  errno = error;
  return -1;
}
