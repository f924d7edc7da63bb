// Takes as much of something as it is told or gets. Each takes a number and, as a second argument,
// `hold`: it then says what it got, and keeps it up to the end of its input.
#include "attack.h"
#include <ftw.h>
#include <pthread.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <time.h>

enum { MEBIBYTE = 1 << 20 };

// Takes one more: 0, or -1 with `errno` set.
typedef long (*take)(long number, char **argument);

static long one_process(long number, char **argument) {
    (void)number, (void)argument;
    pid_t pid = fork();
    if (pid == 0)
        for (;;)
            pause();
    return pid;
}

static long one_mebibyte(long number, char **argument) {
    (void)number, (void)argument;
    volatile char *block = malloc(MEBIBYTE);
    if (!block)
        return -1;
    for (size_t at = 0; at < MEBIBYTE; at += 4096)
        block[at] = 1;
    return 0;
}

// One mebibyte of a file; `argument` is its name.
static long one_mebibyte_of_file(long number, char **argument) {
    static char block[MEBIBYTE];
    static int file = -1;
    if (number == 0) {
        file = open(argument[2], O_WRONLY | O_CREAT | O_TRUNC, 0600);
        unlink(argument[2]);
    }
    memset(block, (int)(number % 255) + 1, sizeof block);
    ssize_t written = write(file, block, sizeof block);
    if (written >= 0 && written < (ssize_t)sizeof block)
        return fail(ENOSPC);
    return written;
}

// Reads what it has written, so that it is kept in memory.
static long one_cached_mebibyte(long number, char **argument) {
    static char block[MEBIBYTE];
    static int file = -1;
    if (number == 0) {
        file = open(argument[2], O_RDWR | O_CREAT | O_TRUNC, 0600);
        unlink(argument[2]);
    }
    memset(block, (int)(number % 255) + 1, sizeof block);
    if (write(file, block, sizeof block) != (ssize_t)sizeof block)
        return fail(ENOSPC);
    return pread(file, block, sizeof block, number * MEBIBYTE);
}

static long one_empty_file(long number, char **argument) {
    static char path[4096];
    snprintf(path, sizeof path, "%s.%ld", argument[2], number);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    return fd < 0 ? -1 : close(fd);
}

static void remove_empty_files(long count, char **argument) {
    char path[4096];
    for (long i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s.%ld", argument[2], i);
        unlink(path);
    }
}

static long one_shared_mebibyte(long number, char **argument) {
    (void)number, (void)argument;
    int id = shmget(IPC_PRIVATE, MEBIBYTE, IPC_CREAT | 0600);
    if (id < 0)
        return -1;
    char *block = shmat(id, NULL, 0);
    int kept = errno;
    shmctl(id, IPC_RMID, NULL);
    errno = kept;
    if (block == (char *)-1)
        return -1;
    memset(block, 1, MEBIBYTE);
    return 0;
}

// Bytes that wait in sockets are the kernel's memory.
static long one_waiting_mebibyte(long number, char **argument) {
    (void)number, (void)argument;
    static char block[64 * 1024];
    for (int room = 0; room < MEBIBYTE;) {
        int ends[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) < 0)
            return -1;
        ssize_t sent;
        while ((sent = send(ends[0], block, sizeof block, MSG_NOSIGNAL)) > 0)
            room += (int)sent;
        if (errno != EAGAIN)
            return -1;
    }
    return 0;
}

// So many of what processes hold, or as many as one of them may, in a child that keeps them.
static long in_a_child(int (*open_one)(void), int most) {
    int told[2], error = EPIPE;
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < (rlim_t)most + 16)
        most = (int)limit.rlim_cur - 16;
    if (pipe(told) < 0)
        return -1;
    pid_t pid = fork();
    if (pid < 0)
        return -1;
    if (pid == 0) {
        error = 0;
        for (int i = 0; i < most && error == 0; i++)
            error = open_one() < 0 ? errno : 0;
        if (write(told[1], &error, sizeof error) < 0)
            _exit(1);
        for (;;)
            pause();
    }
    close(told[1]);
    ssize_t got = read(told[0], &error, sizeof error);
    close(told[0]);
    // One that ended by itself was out of memory.
    return got <= 0 ? fail(ENOMEM) : error ? fail(error) : 0;
}

static int open_socket(void) {
    return socket(AF_INET, SOCK_DGRAM, 0);
}

static int open_descriptor(void) {
    return open("/dev/null", O_RDONLY);
}

static long many_sockets(long number, char **argument) {
    (void)number, (void)argument;
    return in_a_child(open_socket, 2000);
}

static long many_descriptors(long number, char **argument) {
    (void)number, (void)argument;
    return in_a_child(open_descriptor, 10000);
}

static long one_watcher(long number, char **argument) {
    (void)number, (void)argument;
    return inotify_init1(IN_CLOEXEC);
}

enum { WATCHERS = 120, FILES = 16 * 1024 };

static char *files[FILES];
static int known_files;

static int note_file(const char *path, const struct stat *status, int type, struct FTW *walk) {
    (void)status, (void)type, (void)walk;
    files[known_files] = strdup(path);
    return ++known_files == FILES;
}

// A watch on a file that is there, by one of many watchers: each of them counts.
static long one_watch(long number, char **argument) {
    (void)argument;
    static int watchers[WATCHERS];
    if (number == 0)
        nftw("/usr", note_file, 16, FTW_PHYS | FTW_MOUNT);
    long file = number / WATCHERS, watcher = number % WATCHERS;
    if (file == 0)
        watchers[watcher] = inotify_init1(IN_CLOEXEC);
    if (watchers[watcher] < 0)
        return -1;
    // What cannot be read is watched by nobody, and left out.
    if (file >= known_files)
        return fail(ENOENT);
    long watch = inotify_add_watch(watchers[watcher], files[file], IN_MODIFY);
    return watch < 0 && errno == EACCES ? 0 : watch;
}

static void *spin(void *until) {
    struct timespec now;
    do
        clock_gettime(CLOCK_MONOTONIC, &now);
    while (now.tv_sec < *(time_t *)until);
    return NULL;
}

// Takes the processors for two to three seconds, before others where it may, and wants at least a
// sixth of one.
static long processors(long threads) {
    setpriority(PRIO_PROCESS, 0, -15);
    struct timespec begin;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    time_t until = begin.tv_sec + 3;
    pthread_t thread;
    for (long i = 0; i < threads; i++)
        if (pthread_create(&thread, NULL, spin, &until) != 0)
            return fail(EAGAIN);
    spin(&until);
    struct timespec end, used;
    clock_gettime(CLOCK_MONOTONIC, &end);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    double wall = (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9;
    double share = ((double)used.tv_sec + (double)used.tv_nsec / 1e9) / wall;
    printf("%.2f processors ", share);
    return share >= 0.16 ? 0 : fail(ETIME);
}

static const struct {
    const char *name;
    take one;
} kinds[] = {
    {"processes", one_process},
    {"memory", one_mebibyte},
    {"page_cache", one_cached_mebibyte},
    {"file", one_mebibyte_of_file},
    {"inodes", one_empty_file},
    {"shared_memory", one_shared_mebibyte},
    {"socket_buffers", one_waiting_mebibyte},
    {"sockets", many_sockets},
    {"descriptors", many_descriptors},
    {"watchers", one_watcher},
    {"watches", one_watch},
};

int main(int argc, char **argv) {
    if (argc < 3)
        return 2;
    long wanted = atol(argv[2]), got = 0;
    // Nothing but the container's own limits is to be in the way.
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max = 1024 * 1024;
    setrlimit(RLIMIT_NOFILE, &files);
    long result = -1;
    int known = 0;
    errno = 0;
    if (strcmp(argv[1], "processors") == 0) {
        known = 1;
        result = processors(wanted);
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(argv[1], kinds[i].name) != 0)
            continue;
        known = 1;
        // In a group of its own, which ends with it.
        setpgid(0, 0);
        for (result = 0; got < wanted; got++)
            if ((result = kinds[i].one(got, argv + 2)) < 0)
                break;
        printf("%ld ", got);
    }
    if (!known)
        return 2;
    const char *name = strerrorname_np(errno);
    puts(result >= 0 ? "ok" : name ? name : "?");
    fflush(stdout);
    char byte;
    if (argc > 3 && strcmp(argv[3], "hold") == 0 && read(0, &byte, 1) < 0)
        return 2;
    if (strcmp(argv[1], "inodes") == 0)
        remove_empty_files(got + 1, argv + 2);
    signal(SIGTERM, SIG_IGN);
    if (getpgrp() == getpid())
        kill(0, SIGTERM);
    while (wait(NULL) > 0) {
    }
    return result < 0;
}
