/* What the disk still holds of each page that was written and not synced since. A sync that fails and loses its pages
 * leaves them in the system's memory, clean, and not on the disk; whoever then drops clean pages reads the disk's. */
#define _GNU_SOURCE
#include "shim.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE_BYTES 4096
#define BUCKETS 4096

struct page {
  struct page *next;
  ino_t inode;
  uint64_t number;
  int is_lost;
  char on_disk[PAGE_BYTES];
};

static struct page *buckets[BUCKETS];

static struct page **bucket(ino_t inode, uint64_t number) {
  return &buckets[(inode * 31 + number) % BUCKETS];
}

void pages_before_write(const struct descriptor *file, uint64_t offset, size_t count) {
  if (!fault_is_configured() || count == 0) return;
  int reader = -1;
  for (uint64_t number = offset / PAGE_BYTES; number <= (offset + count - 1) / PAGE_BYTES; number++) {
    struct page **head = bucket(file->inode, number);
    struct page *page = *head;
    while (page != NULL && (page->inode != file->inode || page->number != number)) page = page->next;
    if (page == NULL) {
      page = calloc(1, sizeof *page);
      if (page == NULL) shim_give_up("no memory", file->path);
      *page = (struct page){.next = *head, .inode = file->inode, .number = number};
      if (reader < 0) reader = (int)syscall(SYS_openat, AT_FDCWD, file->path, O_RDONLY | O_CLOEXEC, 0);
      if (reader >= 0) syscall(SYS_pread64, reader, page->on_disk, PAGE_BYTES, number * PAGE_BYTES);
      *head = page;
    }
    page->is_lost = 0; /* the page is dirty as a whole: the next sync writes all of it */
  }
  if (reader >= 0) syscall(SYS_close, reader);
}

void pages_synced(ino_t inode) {
  for (size_t i = 0; i < BUCKETS; i++) {
    struct page **at = &buckets[i];
    while (*at != NULL) {
      struct page *page = *at;
      if (page->inode == inode && !page->is_lost) {
        *at = page->next;
        free(page);
      } else {
        at = &page->next;
      }
    }
  }
}

void pages_lost(ino_t inode) {
  for (size_t i = 0; i < BUCKETS; i++)
    for (struct page *page = buckets[i]; page != NULL; page = page->next)
      if (page->inode == inode) page->is_lost = 1;
}

void pages_forget(const struct descriptor *file) {
  int writer = (int)syscall(SYS_openat, AT_FDCWD, file->path, O_RDWR | O_CLOEXEC, 0);
  struct stat stat;
  if (writer < 0 || fstat(writer, &stat) != 0) return;
  for (size_t i = 0; i < BUCKETS; i++) {
    struct page **at = &buckets[i];
    while (*at != NULL) {
      struct page *page = *at;
      if (page->inode != file->inode || !page->is_lost) {
        at = &page->next;
        continue;
      }
      uint64_t offset = page->number * PAGE_BYTES, length = (uint64_t)stat.st_size;
      uint64_t count = offset >= length ? 0 : length - offset < PAGE_BYTES ? length - offset : PAGE_BYTES;
      if (count > 0) syscall(SYS_pwrite64, writer, page->on_disk, count, offset);
      *at = page->next;
      free(page);
    }
  }
  syscall(SYS_close, writer);
}
