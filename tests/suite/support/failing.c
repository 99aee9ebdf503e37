// File operations of one process that fail as the kernel's do, put before the C library with LD_PRELOAD.
//
// FAILING_FILE: part of the path of the files that are meant. FAILING_CONTROL: a file that says what fails
// now, such as "ws 5": letters (r read, w write, s fsync, l length) and the error's number; absent, nothing does.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static int fails(int fd, char operation) {
    const char *file = getenv("FAILING_FILE"), *control = getenv("FAILING_CONTROL");
    int saved = errno, error = 0;
    char link[64], path[4096], said[64], letters[32];
    if (!file || !control) return 0;
    int from = open(control, O_RDONLY | O_CLOEXEC);
    if (from >= 0) {
        ssize_t length = syscall(SYS_read, from, said, sizeof said - 1);
        close(from);
        said[length > 0 ? length : 0] = 0;
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        length = readlink(link, path, sizeof path - 1);
        path[length > 0 ? length : 0] = 0;
        int number;
        if (strstr(path, file) && sscanf(said, "%31s %d", letters, &number) == 2 && strchr(letters, operation))
            error = number;
    }
    errno = error ? error : saved;
    return error;
}

#define FAILING(type, name, operation, parameters, arguments)                      \
    type name parameters {                                                         \
        static type(*real) parameters;                                             \
        if (fails(fd, operation)) return -1;                                       \
        if (!real) real = (type(*) parameters)dlsym(RTLD_NEXT, #name);             \
        return real arguments;                                                     \
    }

FAILING(ssize_t, read, 'r', (int fd, void *to, size_t n), (fd, to, n))
FAILING(ssize_t, pread, 'r', (int fd, void *to, size_t n, off_t at), (fd, to, n, at))
FAILING(ssize_t, pread64, 'r', (int fd, void *to, size_t n, off64_t at), (fd, to, n, at))
FAILING(ssize_t, write, 'w', (int fd, const void *of, size_t n), (fd, of, n))
FAILING(ssize_t, pwrite, 'w', (int fd, const void *of, size_t n, off_t at), (fd, of, n, at))
FAILING(ssize_t, pwrite64, 'w', (int fd, const void *of, size_t n, off64_t at), (fd, of, n, at))
FAILING(int, fsync, 's', (int fd), (fd))
FAILING(int, fdatasync, 's', (int fd), (fd))
FAILING(int, ftruncate, 'l', (int fd, off_t length), (fd, length))
FAILING(int, ftruncate64, 'l', (int fd, off64_t length), (fd, length))
