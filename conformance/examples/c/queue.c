/*
 * A durable message queue over HTTP in 250 lines: a starting point for authors. It needs nothing but C and POSIX.
 *
 * The queue is one log of records. Each record has its length and a checksum, and is synced before it is answered:
 *
 *     type 1 byte ('P' put, 'D' done), length of id 2, length of body 4, id, body, CRC-32 of all that (little-endian)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define HEAD 7
#define LEASE_MS 2000

/* The live messages, in order. `until` is the time at which the lease ends, in ms; 0 if the message is not leased. */
struct message {
  struct message *next;
  long long until;
  unsigned long lease;
  uint32_t size;
  char *body;
  char id[];
};

static struct message *first;
static unsigned long leases;
static int logFile;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

static long long nowMs(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* Exits on an error. The content of the disk is unknown after it, and a second sync could succeed without writing the
   data. The next start reads the log from the disk. */
static void must(int right, const char *what) {
  if (right) return;
  perror(what);
  _exit(1);
}

static uint32_t crc32(uint32_t sum, const void *bytes, size_t size) {
  const unsigned char *at = bytes;
  for (sum = ~sum; size > 0; size--) {
    sum ^= *at++;
    for (int bit = 0; bit < 8; bit++) sum = sum >> 1 ^ (sum & 1 ? 0xedb88320u : 0);
  }
  return ~sum;
}

static void writeAll(int fd, const void *bytes, size_t size) {
  for (const char *at = bytes; size > 0;) {
    ssize_t done = write(fd, at, size);
    must(done > 0 || (done < 0 && errno == EINTR), "write");
    if (done > 0) at += done, size -= done;
  }
}

static void writeRecord(char kind, const char *id, const char *body, uint32_t size) {
  uint16_t length = strlen(id);
  uint32_t whole = HEAD + length + size;
  char *record = malloc(whole + 4);
  must(record != NULL, "malloc");
  record[0] = kind;
  memcpy(record + 1, &length, 2);
  memcpy(record + 3, &size, 4);
  memcpy(record + HEAD, id, length);
  if (size > 0) memcpy(record + HEAD + length, body, size);
  uint32_t sum = crc32(0, record, whole);
  memcpy(record + whole, &sum, 4);
  writeAll(logFile, record, whole + 4);
  free(record);
}

static struct message **find(const char *id) {
  struct message **at = &first;
  while (*at != NULL && strcmp((*at)->id, id) != 0) at = &(*at)->next;
  return at;
}

static void add(const char *id, uint32_t size, const char *body) {
  struct message *message = calloc(1, sizeof *message + strlen(id) + 1);
  must(message != NULL && (message->body = malloc(size + 1)) != NULL, "malloc");
  strcpy(message->id, id);
  memcpy(message->body, body, size);
  message->size = size;
  *find("") = message; /* No message has an empty id, so this appends to the list. */
}

static void removeAt(struct message **at) {
  struct message *gone = *at;
  *at = gone->next;
  free(gone->body);
  free(gone);
}

/* Reads the whole records from the start of the log. The bytes behind them were torn by a crash and never confirmed. */
static void readLog(const char *bytes, size_t size) {
  for (size_t at = 0; at + HEAD + 4 <= size;) {
    uint16_t length;
    uint32_t body, sum;
    memcpy(&length, bytes + at + 1, 2);
    memcpy(&body, bytes + at + 3, 4);
    size_t whole = (size_t)HEAD + length + body;
    if (at + whole + 4 > size) return;
    memcpy(&sum, bytes + at + whole, 4);
    if (sum != crc32(0, bytes + at, whole)) return;
    char *id = strndup(bytes + at + HEAD, length);
    struct message **known = find(id);
    if (bytes[at] == 'P') add(id, body, bytes + at + HEAD + length);
    else if (*known != NULL) removeAt(known);
    free(id);
    at += whole + 4;
  }
}

static void openQueue(const char *data) {
  must(chdir(data) == 0, data);
  int old = open("log", O_RDONLY);
  struct stat is;
  if (old >= 0 && fstat(old, &is) == 0) {
    char *bytes = malloc(is.st_size + 1);
    ssize_t got = 1, size = 0;
    while (got > 0) must((got = read(old, bytes + size, is.st_size - size)) >= 0, "read"), size += got;
    readLog(bytes, size);
    free(bytes);
    close(old);
  }
  /* Write the live messages to a new log, under another name until all of it is on the disk. Then no record is ever
     appended behind a torn record, or behind a record whose sync failed. */
  must((logFile = open("log.new", O_WRONLY | O_CREAT | O_TRUNC, 0600)) >= 0, "log.new");
  for (struct message *at = first; at != NULL; at = at->next) writeRecord('P', at->id, at->body, at->size);
  must(fsync(logFile) == 0, "fsync");
  must(rename("log.new", "log") == 0, "rename");
  /* Sync the directory: without it the new name could be lost in a power cut. */
  int directory = open(".", O_RDONLY);
  must(directory >= 0 && fsync(directory) == 0, "fsync of the directory");
  close(directory);
}

static void answer(FILE *to, const char *status, const char *headers, const char *body, uint32_t size) {
  fprintf(to, "HTTP/1.1 %s\r\n%s", status, headers);
  if (strncmp(status, "204", 3) != 0) fprintf(to, "content-length: %u\r\n", size);
  fputs("\r\n", to);
  if (size > 0) fwrite(body, 1, size, to);
  fflush(to);
}

static void put(FILE *to, const char *id, const char *body, uint32_t size) {
  pthread_mutex_lock(&lock);
  /* A producer repeats a submit if the answer was lost. Store the message only once. */
  if (*find(id) == NULL) {
    writeRecord('P', id, body, size);
    must(fsync(logFile) == 0, "fsync");
    add(id, size, body);
    pthread_cond_signal(&changed);
  }
  pthread_mutex_unlock(&lock);
  answer(to, "201 Created", "", "", 0);
}

static void lease(FILE *to, long waitMs) {
  long long end = nowMs(CLOCK_MONOTONIC) + waitMs;
  pthread_mutex_lock(&lock);
  for (;;) {
    long long now = nowMs(CLOCK_MONOTONIC);
    struct message *at = first;
    while (at != NULL && at->until > now) at = at->next;
    if (at != NULL) {
      char headers[512];
      at->until = now + LEASE_MS;
      at->lease = ++leases;
      snprintf(headers, sizeof headers, "message-id: %s\r\nlease: %d-%lu\r\n", at->id, getpid(), at->lease);
      answer(to, "200 OK", headers, at->body, at->size);
      break;
    }
    if (now >= end) {
      answer(to, "204 No Content", "", "", 0);
      break;
    }
    long long wake = nowMs(CLOCK_REALTIME) + (end - now < 100 ? end - now : 100);
    struct timespec until = {wake / 1000, wake % 1000 * 1000000};
    pthread_cond_timedwait(&changed, &lock, &until);
  }
  pthread_mutex_unlock(&lock);
}

static void consume(FILE *to, const char *key) {
  int pid = 0;
  unsigned long number = 0;
  pthread_mutex_lock(&lock);
  struct message **at = &first;
  if (sscanf(key, "%d-%lu", &pid, &number) != 2 || pid != getpid()) number = 0;
  while (*at != NULL && (number == 0 || (*at)->lease != number)) at = &(*at)->next;
  int found = *at != NULL && (*at)->until > nowMs(CLOCK_MONOTONIC);
  if (found) {
    writeRecord('D', (*at)->id, NULL, 0);
    must(fsync(logFile) == 0, "fsync");
    removeAt(at);
  }
  pthread_mutex_unlock(&lock);
  answer(to, found ? "204 No Content" : "404 Not Found", "", "", 0);
}

/* Serves one connection, request by request, until the client closes it. */
static void *serve(void *given) {
  int fd = (int)(intptr_t)given, one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  FILE *from = fdopen(fd, "r"), *to = fdopen(dup(fd), "w");
  char line[4096], method[16], path[2048];
  while (fgets(line, sizeof line, from) != NULL && sscanf(line, "%15s %2047s", method, path) == 2) {
    size_t size = 0;
    while (fgets(line, sizeof line, from) != NULL && line[0] != '\r')
      if (strncasecmp(line, "content-length:", 15) == 0) size = strtoul(line + 15, NULL, 10);
    char *body = malloc(size + 1);
    /* The body is short if the producer hangs up inside its message. Then nothing was submitted. */
    if (body == NULL || fread(body, 1, size, from) < size) {
      free(body);
      break;
    }
    char *wait = strstr(path, "wait="), *name = strrchr(path, '/');
    name = name == NULL ? path : name + 1;
    if (strcmp(method, "PUT") == 0) put(to, name, body, size);
    else if (strcmp(method, "POST") == 0) lease(to, wait == NULL ? 0 : atol(wait + 5));
    else if (strcmp(method, "DELETE") == 0) consume(to, name);
    else answer(to, strcmp(path, "/ready") == 0 ? "200 OK" : "404 Not Found", "", "", 0);
    free(body);
  }
  fclose(from);
  fclose(to);
  return NULL;
}

int main(int count, char **given) {
  must(count == 3, "usage: queue DATA PORT");
  signal(SIGPIPE, SIG_IGN);
  openQueue(given[1]);
  int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  struct sockaddr_in place = {.sin_family = AF_INET, .sin_port = htons(atoi(given[2])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  must(bind(listener, (struct sockaddr *)&place, sizeof place) == 0 && listen(listener, 64) == 0, "listen");
  for (;;) {
    int fd = accept(listener, NULL, NULL);
    pthread_t thread;
    if (fd >= 0 && pthread_create(&thread, NULL, serve, (void *)(intptr_t)fd) == 0) pthread_detach(thread);
  }
}
