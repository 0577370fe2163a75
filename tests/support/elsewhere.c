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

static char is_accepted[kMostDescriptors];

int socket(int domain, int type, int protocol) {
  const int fd = REAL(socket)(domain, type, protocol);
  if (fd >= 0 && fd < kMostDescriptors) is_accepted[fd] = 0;
  return fd;
}

// The listener's O_NONBLOCK is handed on.
int accept(int listener, struct sockaddr* address, socklen_t* length) {
  const int fd = REAL(accept)(listener, address, length);
  if (fd == -1) return -1;
  if (fd < kMostDescriptors) is_accepted[fd] = 1;
  fcntl(fd, F_SETFL, fcntl(listener, F_GETFL));
  return fd;
}

// Who opened it has reset it: no option can be set any more, and it has no ends.
static int is_gone(int fd) {
  struct tcp_info info = {0};
  socklen_t length = sizeof info;
  if (fd < 0 || fd >= kMostDescriptors || !is_accepted[fd]) return 0;
  const int result = REAL(getsockopt)(fd, IPPROTO_TCP, TCP_INFO, &info, &length);
  return result == 0 && info.tcpi_state == TCP_CLOSE;
}

int getsockname(int fd, struct sockaddr* address, socklen_t* length) {
  return is_gone(fd) ? fails_with(EINVAL) : REAL(getsockname)(fd, address, length);
}

// A UDP port is shared by SO_REUSEPORT alone.
int setsockopt(int fd, int level, int option, const void* value, socklen_t length) {
  if (is_gone(fd)) return fails_with(EINVAL);
  const int is_udp = level == SOL_SOCKET && option_of(fd, SO_TYPE) == SOCK_DGRAM;
  if (is_udp && option == SO_REUSEADDR) return 0;
  if (is_udp && option == SO_REUSEPORT) option = SO_REUSEADDR;
  return REAL(setsockopt)(fd, level, option, value, length);
}

static int host_is_down(void) { return errno == EHOSTUNREACH ? fails_with(EHOSTDOWN) : -1; }

// A blocking one takes as long as it takes, whatever SO_SNDTIMEO says; and an absent host is down.
int connect(int fd, const struct sockaddr* address, socklen_t length) {
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

// A disk that takes "A" and "a" for one name: whether something has this one, but for its case.
static int is_taken(const char* path) {
  char folder[1024];
  const char* slash = strrchr(path, '/');
  const char* name = slash == NULL ? path : slash + 1;
  const int size = slash == NULL ? 1 : (int)(slash - path + 1);
  snprintf(folder, sizeof folder, "%.*s", size, slash == NULL ? "." : path);
  DIR* names = opendir(folder);
  if (names == NULL) return 0;
  int found = 0;
  for (const struct dirent* one = readdir(names); one != NULL && !found; one = readdir(names))
    found = strcasecmp(one->d_name, name) == 0 && strcmp(one->d_name, name) != 0;
  closedir(names);
  return found;
}

int mkdir(const char* path, mode_t mode) {
  if (is_too_long(path)) return fails_with(ENAMETOOLONG);
  if (is_taken(path)) return fails_with(EEXIST);
  return REAL(mkdir)(path, mode);
}

int open64(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  if (is_too_long(path)) return fails_with(ENAMETOOLONG);
  const int is_exclusive = (flags & O_CREAT) && (flags & O_EXCL);
  if (is_exclusive && is_taken(path)) return fails_with(EEXIST);
  return REAL(open64)(path, flags, mode);
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
