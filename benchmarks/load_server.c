/* The server of the benchmarks: answers the token call and the details call of any image, costing as little as it can,
 * so that the client is what is measured. Linux only (epoll), one thread.
 *
 *   load_server LATENCY_MS RATE BURST [CERTIFICATE_PEM KEY_PEM]
 *
 * With LISTED=FILE in its environment (lines of 36 characters, an id each) it answers the list of these images as well,
 * and a list of notebooks, one for every fiftieth of them.
 *
 * Listens on a free port of 127.0.0.1 and prints it. Ends when standard input closes.
 * LATENCY_MS  wait before each details answer
 * RATE        details calls per second that are let through (0: all), others get 429 with Retry-After: 1;
 *             by a bucket that holds BURST, or, when BURST is 0, counted in calendar seconds
 * With a certificate (and compiled with -DTLS -lssl -lcrypto) it speaks TLS.
 * GET /stats answers with counts since the last one, as JSON.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#ifdef TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
static SSL_CTX *tls;
#endif

#define CONNECTIONS 4096
#define IN 8192
#define OUT 2048
#define MAX_PAGE 200
#define LINE 37
#define IMAGES_A_NOTEBOOK 50
#define PROJECT "0123456789abcdef0123456789abcdef"
#define TOKEN "benchmark-token"

struct connection {
    int used, in_length, out_length, out_sent;
    uint32_t life; /* what is due for an earlier connection on this descriptor is dropped */
#ifdef TLS
    SSL *ssl;
#endif
    char in[IN], out[OUT], *page; /* `page`: room for the answer of a list, once one was asked for */
    const char *sends;
};
struct due { int64_t at; int fd; uint32_t life; };

static struct connection connections[CONNECTIONS];
static struct due queue[CONNECTIONS]; /* one latency for all: the first that came is the first that is due */
static uint32_t queue_first, queue_last;
static int poller;
static int64_t latency, stats_first, stats_last, bucket_at;
static double rate, burst, bucket;
static long served, refused, denied, accepted;

static const char *BODY_START = "{\"id\":\"";
/* `@` stands for a digit of the id, `#` for one of its decimal digits, so that images differ as real ones do. */
#define BODY(VISIBILITY, DESCRIPTION) \
    "\",\"name\":\"trainer-@@@@@@@@\",\"namespace\":\"team-@@\",\"swr_path\":\"swr.region-1.example.com/team-@@/" \
    "trainer-@@@@@@@@:2.4.1\",\"tag\":\"2.4.1\",\"arch\":\"x86_64\",\"type\":\"DEDICATED\",\"origin\":\"IMAGE_SAVE\"," \
    "\"service_type\":\"COMMON\",\"status\":\"ACTIVE\",\"status_message\":\"\",\"visibility\":\"" VISIBILITY "\"," \
    "\"workspace_id\":\"0\",\"flavor_type\":\"\",\"description\":\"" DESCRIPTION "\",\"size\":8####56," \
    "\"create_at\":17#####600123,\"update_at\":1769#####0456,\"dev_services\":[\"NOTEBOOK\",\"SSH\"]," \
    "\"resource_categories\":[\"CPU\",\"GPU\"]"
#define SUPPORTED ",\"support_res_categories\":[\"CPU\",\"GPU\"]}"
static const char *BODIES[2] = {
    BODY("PRIVATE", "Training environment of the team with its tools and drivers, saved from a notebook after the last "
                    "change to its packages") SUPPORTED,
    BODY("PUBLIC", "") SUPPORTED,
};
static char ok_heads[2][256];
static int ok_head_lengths[2], body_lengths[2];
static const char *listed; /* the file of ids */
static long listed_count;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void close_connection(int fd) {
    struct connection *c = &connections[fd];
#ifdef TLS
    if (c->ssl) { SSL_shutdown(c->ssl); SSL_free(c->ssl); c->ssl = NULL; ERR_clear_error(); }
#endif
    c->used = 0;
    c->life++;
    close(fd);
}

static void watch(int fd, uint32_t events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    epoll_ctl(poller, EPOLL_CTL_MOD, fd, &event);
}

/* How much was written or read, 0 when it would block, -1 when the connection ended. */
static int io(int fd, char *data, int length, int writing) {
    struct connection *c = &connections[fd];
#ifdef TLS
    if (c->ssl) {
        int n = writing ? SSL_write(c->ssl, data, length) : SSL_read(c->ssl, data, length);
        if (n > 0) return n;
        int why = SSL_get_error(c->ssl, n);
        ERR_clear_error();
        return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? 0 : -1;
    }
#endif
    (void)c;
    ssize_t n = writing ? send(fd, data, length, MSG_NOSIGNAL) : recv(fd, data, length, 0);
    if (n > 0) return (int)n;
    return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

static void send_out(int fd) {
    struct connection *c = &connections[fd];
    while (c->out_sent < c->out_length) {
        int n = io(fd, (char *)c->sends + c->out_sent, c->out_length - c->out_sent, 1);
        if (n < 0) { close_connection(fd); return; }
        if (n == 0) { watch(fd, EPOLLIN | EPOLLOUT); return; }
        c->out_sent += n;
    }
    c->out_length = c->out_sent = 0;
}

static void answer(int fd, const char *status, const char *headers, const char *body) {
    struct connection *c = &connections[fd];
    c->sends = c->out;
    c->out_length = snprintf(c->out, OUT, "HTTP/1.1 %s\r\nContent-Type: application/json\r\n%sContent-Length: %zu\r\n\r\n%s",
                             status, headers, strlen(body), body);
    send_out(fd);
}

static int let_through(int64_t now) {
    if (rate == 0) return 1;
    if (burst == 0) {
        if (now / 1000000000 != bucket_at) { bucket_at = now / 1000000000; bucket = rate; }
    } else {
        bucket += (double)(now - bucket_at) * rate / 1e9;
        if (bucket > burst) bucket = burst;
        bucket_at = now;
    }
    if (bucket < 1) return 0;
    bucket -= 1;
    return 1;
}

/* Three images of sixteen are public, and lack a description. */
static int kind_of(const char *id) { return id[35] < '3'; }

static char *put_image(char *out, const char *id, int kind, int length) {
    memcpy(out, BODY_START, 7); out += 7;
    memcpy(out, id, 36); out += 36;
    int hex = 0, decimal = 0;
    for (const char *from = BODIES[kind], *end = from + length; from < end; from++, out++) {
        if (*from == '@') *out = id[hex++ % 8];
        else if (*from == '#') *out = (char)('0' + id[24 + decimal++ % 12] % 7);
        else *out = *from;
    }
    return out;
}

static long number_after(const char *target, const char *name) {
    const char *found = strstr(target, name);
    return found ? atol(found + strlen(name)) : 0;
}

/* A page of the list: images as they are shown, but for what that list lacks; or notebooks, each using an image. */
static void show_page(int fd, const char *target, int of_notebooks) {
    struct connection *c = &connections[fd];
    long total = of_notebooks ? listed_count / IMAGES_A_NOTEBOOK : listed_count;
    long first = number_after(target, "offset="), limit = number_after(target, "limit=");
    if (limit > MAX_PAGE) limit = MAX_PAGE;
    long last = first + limit < total ? first + limit : total;
    if (!c->page) c->page = malloc(256 + MAX_PAGE * OUT);
    char *body = c->page + 256, *out = body;
    out += sprintf(out, "{\"current\":%ld,\"pages\":%ld,\"size\":%ld,\"total\":%ld,\"data\":[", first / (limit + !limit),
                   total / (limit + !limit) + 1, limit, total);
    for (long number = first; number < last; number++) {
        if (number > first) *out++ = ',';
        if (of_notebooks) {
            const char *id = listed + number * IMAGES_A_NOTEBOOK * LINE;
            out += sprintf(out, "{\"id\":\"%08lx-0000-4000-8000-000000000000\",\"name\":\"notebook-%ld\",\"status\":"
                           "\"RUNNING\",\"image\":{\"id\":\"%.36s\"}}", number, number, id);
        } else {
            const char *id = listed + number * LINE;
            int kind = kind_of(id);
            out = put_image(out, id, kind, body_lengths[kind] - (int)strlen(SUPPORTED));
            *out++ = '}';
        }
    }
    out += sprintf(out, "]}");
    char head[256];
    int length = sprintf(head, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
                         (int)(out - body));
    memcpy(body - length, head, length);
    c->sends = body - length;
    c->out_length = (int)(out - c->sends);
    send_out(fd);
}

static void show_image(int fd, const char *id) {
    struct connection *c = &connections[fd];
    int64_t now = now_ns();
    if (!stats_first) stats_first = now;
    stats_last = now;
    char *out = c->out;
    c->sends = out;
    if (let_through(now)) {
        int kind = kind_of(id);
        served++;
        memcpy(out, ok_heads[kind], ok_head_lengths[kind]); out += ok_head_lengths[kind];
        out = put_image(out, id, kind, body_lengths[kind]);
        c->out_length = (int)(out - c->out);
    } else {
        refused++;
        const char *body = "{\"error_code\":\"APIG.0308\",\"error_msg\":\"The throttling threshold has been reached\"}";
        c->out_length = snprintf(c->out, OUT, "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\n"
                                 "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", strlen(body), body);
    }
    if (latency == 0) { send_out(fd); return; }
    queue[queue_last++ % CONNECTIONS] = (struct due){now + latency, fd, c->life};
}

static void show_stats(int fd) {
    char body[256];
    snprintf(body, sizeof body, "{\"served\":%ld,\"refused\":%ld,\"denied\":%ld,\"connections\":%ld,\"seconds\":%.6f}",
             served, refused, denied, accepted, (double)(stats_last - stats_first) / 1e9);
    served = refused = denied = accepted = 0;
    stats_first = stats_last = 0;
    answer(fd, "200 OK", "", body);
}

/* Take one request from the input, when it is whole. */
static int take(int fd) {
    struct connection *c = &connections[fd];
    if (c->out_length) return 0; /* no pipelining */
    c->in[c->in_length] = 0;
    char *end = strstr(c->in, "\r\n\r\n");
    if (!end) return 0;
    int length = (int)(end - c->in) + 4;
    int is_post = c->in[0] == 'P';
    if (is_post) {
        char *stated = strcasestr(c->in, "\r\ncontent-length:");
        if (stated && stated < end) length += atoi(stated + 17);
        if (c->in_length < length) return 0;
    }
    char *target = strchr(c->in, ' ') + 1, *space = strchr(target, ' '), *id = space - 36;
    uint32_t life = c->life;
    if (is_post) {
        char head[64];
        snprintf(head, sizeof head, "X-Subject-Token: %s\r\n", TOKEN);
        answer(fd, "201 Created", head, "{\"token\":{\"issued_at\":\"2026-01-01T00:00:00Z\",\"expires_at\":"
               "\"2026-01-02T00:00:00Z\",\"project\":{\"id\":\"" PROJECT "\",\"name\":\"benchmark\"}}}");
    } else if (strncmp(target, "/stats ", 7) == 0) {
        show_stats(fd);
    } else if (listed && (strstr(target, "/images?") || strstr(target, "/notebooks/all?")) && strstr(target, "?") < space) {
        *end = 0;
        if (strstr(c->in, TOKEN)) {
            show_page(fd, target, strstr(target, "/notebooks/all?") != NULL);
        } else {
            denied++;
            answer(fd, "401 Unauthorized", "", "{\"error_code\":\"APIG.0301\",\"error_msg\":\"who are you\"}");
        }
    } else if (id < target || id[-1] != '/') {
        answer(fd, "404 Not Found", "", "{\"error_code\":\"APIG.0101\",\"error_msg\":\"no such path\"}");
    } else {
        *end = 0;
        if (strstr(c->in, TOKEN) || strstr(c->in, "SDK-HMAC-SHA256")) {
            show_image(fd, id);
        } else {
            denied++;
            answer(fd, "401 Unauthorized", "", "{\"error_code\":\"APIG.0301\",\"error_msg\":\"who are you\"}");
        }
    }
    if (!c->used || c->life != life) return 0;
    memmove(c->in, c->in + length, c->in_length - length);
    c->in_length -= length;
    return c->in_length > 0;
}

static void readable(int fd) {
    struct connection *c = &connections[fd];
    for (;;) {
        int n = io(fd, c->in + c->in_length, IN - 1 - c->in_length, 0);
        if (n < 0) { close_connection(fd); return; }
        if (n == 0) break;
        c->in_length += n;
        if (c->in_length == IN - 1) { close_connection(fd); return; }
#ifdef TLS
        if (c->ssl) continue;
#endif
        break;
    }
    while (c->used && take(fd)) {}
}

static void accept_all(int listener) {
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
        if (fd >= CONNECTIONS) { close(fd); continue; }
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct connection *c = &connections[fd];
        c->used = 1;
        c->in_length = c->out_length = c->out_sent = 0;
        accepted++;
#ifdef TLS
        if (tls) { c->ssl = SSL_new(tls); SSL_set_fd(c->ssl, fd); SSL_set_accept_state(c->ssl); }
#endif
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    }
}

int main(int argc, char **argv) {
    if (argc != 4 && argc != 6) { fprintf(stderr, "usage: load_server LATENCY_MS RATE BURST [CERTIFICATE KEY]\n"); return 2; }
    latency = (int64_t)(atof(argv[1]) * 1e6);
    rate = atof(argv[2]);
    bucket = burst = atof(argv[3]);
    bucket_at = now_ns();
    signal(SIGPIPE, SIG_IGN);
    if (argc == 6) {
#ifdef TLS
        tls = SSL_CTX_new(TLS_server_method());
        SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        if (SSL_CTX_use_certificate_chain_file(tls, argv[4]) != 1 ||
            SSL_CTX_use_PrivateKey_file(tls, argv[5], SSL_FILETYPE_PEM) != 1) { ERR_print_errors_fp(stderr); return 2; }
#else
        fprintf(stderr, "compiled without TLS\n");
        return 2;
#endif
    }
    for (int kind = 0; kind < 2; kind++) {
        body_lengths[kind] = (int)strlen(BODIES[kind]);
        ok_head_lengths[kind] = snprintf(ok_heads[kind], sizeof ok_heads[kind],
                                         "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nServer: api-gateway\r\n"
                                         "X-Request-Id: 4f1d2c3b5a6978877665544332211000\r\nContent-Type: application/json\r\n"
                                         "Content-Length: %d\r\n\r\n", 7 + 36 + body_lengths[kind]);
    }
    const char *file = getenv("LISTED");
    if (file && *file) {
        struct stat facts;
        int ids = open(file, O_RDONLY);
        if (ids < 0 || fstat(ids, &facts)) { perror(file); return 1; }
        listed_count = facts.st_size / LINE;
        listed = mmap(NULL, facts.st_size, PROT_READ, MAP_PRIVATE, ids, 0);
        if (listed == MAP_FAILED) { perror(file); return 1; }
    }
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 4096)) { perror("load_server"); return 1; }
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    poller = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    event.data.fd = 0;
    epoll_ctl(poller, EPOLL_CTL_ADD, 0, &event);
    struct epoll_event events[256];
    for (;;) {
        /* epoll_wait knows milliseconds only; poll on the poller knows nanoseconds. */
        if (queue_first != queue_last) {
            int64_t wait = queue[queue_first % CONNECTIONS].at - now_ns();
            if (wait > 0) {
                struct timespec t = {wait / 1000000000, wait % 1000000000};
                struct pollfd p = {.fd = poller, .events = POLLIN};
                ppoll(&p, 1, &t, NULL);
            }
        }
        int count = epoll_wait(poller, events, 256, queue_first == queue_last ? -1 : 0);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == 0) return 0;
            if (fd == listener) { accept_all(listener); continue; }
            if (!connections[fd].used) continue;
            if (events[i].events & EPOLLOUT) {
                watch(fd, EPOLLIN);
                send_out(fd);
                if (connections[fd].used) while (take(fd)) {}
            } else {
                readable(fd);
            }
        }
        int64_t now = now_ns();
        while (queue_first != queue_last && queue[queue_first % CONNECTIONS].at <= now) {
            struct due due = queue[queue_first++ % CONNECTIONS];
            if (connections[due.fd].used && connections[due.fd].life == due.life) send_out(due.fd);
        }
    }
}
