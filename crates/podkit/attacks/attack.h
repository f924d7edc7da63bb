// What the attack programs share. Each takes the name of an attack and its arguments, and prints
// one word: `ok` when the attack succeeded (exit 0), else the name of the error (exit 1).
#ifndef PODKIT_ATTACK_H
#define PODKIT_ATTACK_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

// One attack: 0 on success, else -1 with `errno` set.
struct attack {
    const char *name;
    long (*run)(char **argument);
};

static inline int attack_main(const struct attack *attacks, int argc, char **argv) {
    for (; attacks->name; attacks++) {
        if (argc < 2 || strcmp(attacks->name, argv[1]) != 0)
            continue;
        errno = 0;
        if (attacks->run(argv + 2) >= 0) {
            puts("ok");
            return 0;
        }
        const char *name = strerrorname_np(errno);
        puts(name ? name : "?");
        return 1;
    }
    fprintf(stderr, "no such attack\n");
    return 2;
}

// Fails with `number`.
static inline long fail(int number) {
    errno = number;
    return -1;
}

// Writes `text` to `path`, which must exist.
static inline long overwrite(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t written = write(fd, text, strlen(text));
    int kept = errno;
    close(fd);
    errno = kept;
    return written < 0 ? -1 : 0;
}

// Reads some of `path`; an empty file is ENODATA.
static inline long read_some(const char *path, char *buffer, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t got = read(fd, buffer, size - 1);
    int kept = errno;
    close(fd);
    errno = kept;
    if (got < 0)
        return -1;
    buffer[got] = 0;
    return got == 0 ? fail(ENODATA) : 0;
}

#endif
