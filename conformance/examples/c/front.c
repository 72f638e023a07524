/*
 * The front of a queue of two services: it accepts the requests and passes each to the store, which is queue.c.
 * It keeps nothing, so a crash of it loses nothing. Only an answer of the store confirms a message.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

static struct sockaddr_in store;

static struct sockaddr_in loopback(const char *port) {
  return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(atoi(port)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void must(int right, const char *what) {
  if (right) return;
  perror(what);
  exit(1);
}

/* Reads one whole request or answer: its head, and as many bytes as its content-length says. Returns NULL if the other
   side hangs up before that. An incomplete message is not passed on. */
static char *readWhole(FILE *from, size_t *size) {
  char *whole = NULL, line[4096];
  size_t body = 0, at = 0;
  FILE *head = open_memstream(&whole, &at);
  must(head != NULL, "open_memstream");
  int ended = 0;
  while (!ended && fgets(line, sizeof line, from) != NULL) {
    fputs(line, head);
    if (strncasecmp(line, "content-length:", 15) == 0) body = strtoul(line + 15, NULL, 10);
    ended = line[0] == '\r';
  }
  fclose(head);
  char *room = ended ? realloc(whole, at + body) : NULL;
  if (room == NULL || fread(room + at, 1, body, from) < body) {
    free(room == NULL ? whole : room);
    return NULL;
  }
  *size = at + body;
  return room;
}

/* Passes one request to the store and its answer to the client. Returns 0 if there is no answer. */
static int relay(FILE *to, const char *request, size_t size) {
  static const char no[] = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
  /* Open a new connection for each request: a crash of the store breaks its old connections. */
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  must(fd >= 0, "socket");
  if (connect(fd, (struct sockaddr *)&store, sizeof store) != 0) {
    close(fd);
    /* The store got nothing. This is a clear no: the producer may send the message elsewhere. */
    return fwrite(no, 1, sizeof no - 1, to) == sizeof no - 1 && fflush(to) == 0;
  }
  /* Without an answer the front says neither yes nor no: the store may have stored the message before it crashed. */
  FILE *out = fdopen(dup(fd), "w"), *in = fdopen(fd, "r");
  must(out != NULL && in != NULL, "fdopen");
  char *answer = NULL;
  size_t length = 0;
  if (fwrite(request, 1, size, out) == size && fflush(out) == 0) answer = readWhole(in, &length);
  int done = answer != NULL && fwrite(answer, 1, length, to) == length && fflush(to) == 0;
  free(answer);
  fclose(out);
  fclose(in);
  return done;
}

/* Serves one connection, request by request, until the client closes it. */
static void *serve(void *given) {
  int fd = (int)(intptr_t)given, one = 1, going = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  FILE *from = fdopen(fd, "r"), *to = fdopen(dup(fd), "w");
  must(from != NULL && to != NULL, "fdopen");
  while (going) {
    size_t size = 0;
    char *request = readWhole(from, &size);
    going = request != NULL && relay(to, request, size);
    free(request);
  }
  fclose(from);
  fclose(to);
  return NULL;
}

int main(int count, char **given) {
  must(count == 3, "usage: front PORT PORT_OF_STORE");
  signal(SIGPIPE, SIG_IGN);
  store = loopback(given[2]);
  struct sockaddr_in place = loopback(given[1]);
  int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  must(bind(listener, (struct sockaddr *)&place, sizeof place) == 0 && listen(listener, 64) == 0, "listen");
  for (;;) {
    int fd = accept(listener, NULL, NULL);
    pthread_t thread;
    if (fd >= 0 && pthread_create(&thread, NULL, serve, (void *)(intptr_t)fd) == 0) pthread_detach(thread);
  }
}
