// Does on Linux what macOS and the BSDs do differently, by LD_PRELOAD. `make elsewhere` runs tests
// of discovery, messages and files with a ./peer that has it loaded, so we test each difference on
// a machine without it. tests/systems.sh finds what does not even compile there.
//
// It imitates only what our program comes across. The tests themselves run without it.

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>

// The function of this name that would be called without us.
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int fails_with(int error) {
  errno = error;
  return -1;
}

static int option_of(int fd, int option) {
  int value = -1;
  socklen_t length = sizeof value;
  REAL(getsockopt)(fd, SOL_SOCKET, option, &value, &length);
  return value;
}

// ---- Sockets -----------------------------------------------------------------------------------

enum { kMostDescriptors = 10240 };

static char was_connected[kMostDescriptors];
static char was_shut_down[kMostDescriptors];

static int is_known(int fd) { return fd >= 0 && fd < kMostDescriptors; }

static void note_connected(int fd, int is_connected) {
  if (!is_known(fd)) return;
  was_connected[fd] = (char)is_connected;
  was_shut_down[fd] = 0;
}

int socket(int domain, int type, int protocol) {
  const int fd = REAL(socket)(domain, type, protocol);
  note_connected(fd, 0);
  return fd;
}

// The listener's O_NONBLOCK is handed on.
int accept(int listener, struct sockaddr* address, socklen_t* length) {
  const int fd = REAL(accept)(listener, address, length);
  if (fd == -1) return -1;
  note_connected(fd, 1);
  fcntl(fd, F_SETFL, fcntl(listener, F_GETFL));
  return fd;
}

int shutdown(int fd, int how) {
  const int result = REAL(shutdown)(fd, how);
  if (result == 0 && how == SHUT_RDWR && is_known(fd)) was_shut_down[fd] = 1;
  return result;
}

static int state_of(int fd) {
  struct tcp_info info = {0};
  socklen_t length = sizeof info;
  const int result = REAL(getsockopt)(fd, IPPROTO_TCP, TCP_INFO, &info, &length);
  return result == -1 ? 0 : info.tcpi_state;
}

// It was reset, or has ended: it has no two ends any more.
static int is_gone(int fd) {
  return is_known(fd) && was_connected[fd] && state_of(fd) == TCP_CLOSE;
}

// Nothing can be sent or received any more, so no option can be set either.
static int is_shut_down(int fd) {
  if (!is_known(fd) || !was_connected[fd]) return 0;
  const int state = state_of(fd);
  const int is_at_end = state == TCP_LAST_ACK || state == TCP_CLOSING || state == TCP_TIME_WAIT;
  return was_shut_down[fd] || is_at_end || is_gone(fd);
}

int getsockname(int fd, struct sockaddr* address, socklen_t* length) {
  return is_gone(fd) ? fails_with(EINVAL) : REAL(getsockname)(fd, address, length);
}

// A UDP port is shared by SO_REUSEPORT alone.
int setsockopt(int fd, int level, int option, const void* value, socklen_t length) {
  if (is_shut_down(fd)) return fails_with(EINVAL);
  const int is_udp = level == SOL_SOCKET && option_of(fd, SO_TYPE) == SOCK_DGRAM;
  if (is_udp && option == SO_REUSEADDR) return 0;
  if (is_udp && option == SO_REUSEPORT) option = SO_REUSEADDR;
  return REAL(setsockopt)(fd, level, option, value, length);
}

static int host_is_down(void) { return errno == EHOSTUNREACH ? fails_with(EHOSTDOWN) : -1; }

// A blocking one takes as long as it takes, whatever SO_SNDTIMEO says; and an absent host is down.
int connect(int fd, const struct sockaddr* address, socklen_t length) {
  note_connected(fd, 1);
  struct timeval limit = {0, 0};
  const struct timeval none = {0, 0};
  socklen_t size = sizeof limit;
  REAL(getsockopt)(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, &size);
  REAL(setsockopt)(fd, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof none);
  const int result = REAL(connect)(fd, address, length);
  const int error = errno;
  REAL(setsockopt)(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  errno = error;
  return result == -1 ? host_is_down() : result;
}

int getsockopt(int fd, int level, int option, void* value, socklen_t* length) {
  const int result = REAL(getsockopt)(fd, level, option, value, length);
  const int is_error = result == 0 && level == SOL_SOCKET && option == SO_ERROR;
  if (is_error && *(int*)value == EHOSTUNREACH) *(int*)value = EHOSTDOWN;
  return result;
}

// Nothing is broadcast on loopback.
ssize_t sendto(int fd, const void* bytes, size_t size, int flags, const struct sockaddr* to,
               socklen_t length) {
  const struct sockaddr_in* address = (const struct sockaddr_in*)to;
  if (address != NULL && address->sin_addr.s_addr == htonl(0x7FFFFFFF)) return (ssize_t)size;
  const ssize_t result = REAL(sendto)(fd, bytes, size, flags, to, length);
  return result == -1 ? host_is_down() : result;
}

// ---- Files -------------------------------------------------------------------------------------

// PATH_MAX is 1,024.
static int is_too_long(const char* path) { return strlen(path) >= 1024; }

// A disk that takes "A" and "a" for one name: whether something has this name but for its case,
// and which one it is. `found` has room for 1,024 bytes.
static int is_taken(const char* path, char* found) {
  struct stat its;
  if (fstatat(AT_FDCWD, path, &its, AT_SYMLINK_NOFOLLOW) == 0) return 0;  // it has that very name
  const char* slash = strrchr(path, '/');
  const char* name = slash == NULL ? path : slash + 1;
  const int size = (int)(name - path);
  snprintf(found, 1024, "%.*s", size, path);
  DIR* names = opendir(size == 0 ? "." : found);
  if (names == NULL) return 0;
  int is_there = 0;
  for (const struct dirent* one = readdir(names); one != NULL && !is_there; one = readdir(names)) {
    is_there = strcasecmp(one->d_name, name) == 0;
    if (is_there) snprintf(found, 1024, "%.*s%s", size, path, one->d_name);
  }
  closedir(names);
  return is_there;
}

int mkdir(const char* path, mode_t mode) {
  if (is_too_long(path)) return fails_with(ENAMETOOLONG);
  char found[1024];
  if (is_taken(path, found)) return fails_with(EEXIST);
  return REAL(mkdir)(path, mode);
}

int open64(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  if (is_too_long(path)) return fails_with(ENAMETOOLONG);
  char found[1024];
  if (!is_taken(path, found)) return REAL(open64)(path, flags, mode);
  const int is_exclusive = (flags & O_CREAT) && (flags & O_EXCL);
  return is_exclusive ? fails_with(EEXIST) : REAL(open64)(found, flags, mode);
}

// Whoever has the new name, but for its case, is replaced.
int rename(const char* from, const char* to) {
  char found[1024];
  return REAL(rename)(from, is_taken(to, found) ? found : to);
}

// A stick with exFAT has no links; Linux says EPERM of it.
int link(const char* from, const char* to) {
  (void)from;
  (void)to;
  return fails_with(ENOTSUP);
}

// ---- The rest ----------------------------------------------------------------------------------

// The locale for UTF-8 has that name.
char* setlocale(int category, const char* name) {
  if (name != NULL && strcmp(name, "C.UTF-8") == 0) return NULL;
  if (name != NULL && strcmp(name, "UTF-8") == 0) name = "C.UTF-8";
  return REAL(setlocale)(category, name);
}

// There is no hard limit for open files, and none higher than 10,240 is taken.
int getrlimit64(__rlimit_resource_t which, struct rlimit64* limit) {
  const int result = REAL(getrlimit64)(which, limit);
  if (which == RLIMIT_NOFILE) limit->rlim_max = RLIM64_INFINITY;
  return result;
}

int setrlimit64(__rlimit_resource_t which, const struct rlimit64* limit) {
  struct rlimit64 wanted = *limit;
  if (which != RLIMIT_NOFILE) return REAL(setrlimit64)(which, limit);
  if (limit->rlim_cur > kMostDescriptors) return fails_with(EINVAL);
  REAL(getrlimit64)(which, &wanted);
  wanted.rlim_cur = limit->rlim_cur;
  return REAL(setrlimit64)(which, &wanted);
}
