/* Graceful shutdown where it is asked for; otherwise no trace of the library in the process. */
#include <sys/resource.h>
#include <sys/stat.h>

#include "peer.h"

#define CHANNEL 3
#define SIGNALS 64

extern char **environ;

static int graceful_engine(void) {
    alarm(WATCHDOG_SECONDS);
    transfer_engine_t first = engine_open(), second = engine_open(), gone = engine_open();
    enableGracefulShutdown(first);
    enableGracefulShutdown(second);
    enableGracefulShutdown(gone);
    enableGracefulShutdown(first);
    destroyTransferEngine(gone);
    if (write(CHANNEL, "r", 1) != 1) return 1;
    for (;;) pause();
}

/* A whole session that ends by returning from main; what it prints is the library's doing. */
static int quiet_session(bool graceful) {
    char text[4096];
    transfer_engine_t engine = engine_open();
    if (graceful) enableGracefulShutdown(engine);
    unsigned char *bytes = registered_bytes(engine, 65536);
    transfer_request_t r = request(OPCODE_WRITE, bytes, LOCAL_SEGMENT, (uintptr_t)bytes + 4096, 4096);
    int ok = transfer_once(engine, r, 20000) == STATUS_COMPLETED;
    openSegment(engine, "127.0.0.1:1");
    registerLocalMemory(engine, NULL, 0, NULL, 0);
    freeBatchID(engine, 1);
    installTransport(engine, "bogus", NULL);
    showLinks(engine, text, sizeof text, 1);
    if (!graceful) destroyTransferEngine(engine);
    return !ok;
}

static pid_t start_again(const char *mode, int out, int as) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(out, as);
        execl("/proc/self/exe", "shutdown", mode, (char *)NULL);
        _exit(127);
    }
    return pid;
}

static void signal_gives(const char *name, int signo, int want) {
    int fds[2];
    char byte;
    if (pipe2(fds, O_CLOEXEC) != 0) harness_give_up("a pipe");
    int high = fcntl(fds[1], F_DUPFD_CLOEXEC, 64);
    pid_t child = start_again("--graceful", high, CHANNEL);
    close(fds[1]);
    close(high);
    REQUIRE("an engine with graceful shutdown is up", read(fds[0], &byte, 1) == 1);
    kill(child, signo);
    int status = child_reap(child, 20000);
    CHECK("it exits, it is not killed", status >= 0 && WIFEXITED(status));
    CHECK_EQ(name, status < 0 ? status : WEXITSTATUS(status), want);
    close(fds[0]);
}

static void prints_nothing(const char *name, const char *mode) {
    int file = memfd_create("stdout", MFD_CLOEXEC);
    int high = fcntl(file, F_DUPFD_CLOEXEC, 64);
    int status = child_reap(start_again(mode, high, STDOUT_FILENO), 60000);
    CHECK_EQ("a session ends by returning from main", status, 0);
    CHECK_EQ(name, lseek(file, 0, SEEK_END), 0);
    close(file);
    close(high);
}

struct process {
    struct sigaction actions[SIGNALS + 1];
    sigset_t mask;
    struct rlimit files;
    size_t variables;
    uint64_t environment;
    mode_t mask_bits;
    char directory[1024];
};

static struct process take_picture(void) {
    struct process p;
    memset(&p, 0, sizeof p);
    for (int s = 1; s <= SIGNALS; s++) sigaction(s, NULL, &p.actions[s]);
    sigprocmask(SIG_BLOCK, NULL, &p.mask);
    getrlimit(RLIMIT_NOFILE, &p.files);
    p.environment = FNV_START;
    for (char **v = environ; *v != NULL; v++, p.variables++) p.environment = fnv1a(p.environment, *v, strlen(*v) + 1);
    p.mask_bits = umask(0);
    umask(p.mask_bits);
    if (getcwd(p.directory, sizeof p.directory) == NULL) p.directory[0] = '\0';
    return p;
}

static void compare(const struct process *a, const struct process *b) {
    int handlers = 0, masked = 0;
    for (int s = 1; s <= SIGNALS; s++) {
        handlers += a->actions[s].sa_handler != b->actions[s].sa_handler || a->actions[s].sa_flags != b->actions[s].sa_flags;
        masked += sigismember(&a->mask, s) != sigismember(&b->mask, s);
    }
    CHECK_EQ("no signal handler was installed", handlers, 0);
    CHECK_EQ("the caller's signal mask is the same", masked, 0);
    CHECK("RLIMIT_NOFILE is the same", a->files.rlim_cur == b->files.rlim_cur && a->files.rlim_max == b->files.rlim_max);
    CHECK_EQ("no environment variable was added", b->variables, a->variables);
    CHECK("nor changed", a->environment == b->environment);
    CHECK("umask and working directory are the same",
          a->mask_bits == b->mask_bits && strcmp(a->directory, b->directory) == 0);
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "--graceful") == 0) return graceful_engine();
    if (argc == 2 && strcmp(argv[1], "--session") == 0) return quiet_session(false);
    if (argc == 2 && strcmp(argv[1], "--graceful-session") == 0) return quiet_session(true);
    harness_begin();
    struct process before = take_picture();
    size_t threads = thread_count();
    transfer_engine_t engine = engine_open();
    unsigned char *bytes = registered_bytes(engine, 65536);
    transfer_request_t r = request(OPCODE_WRITE, bytes, LOCAL_SEGMENT, (uintptr_t)bytes + 4096, 4096);
    CHECK_EQ("a transfer", transfer_once(engine, r, 20000), STATUS_COMPLETED);
    struct process during = take_picture();
    printf("# with a live engine\n");
    compare(&before, &during);
    destroyTransferEngine(engine);
    struct process after = take_picture();
    printf("# after destroy\n");
    compare(&before, &after);
    CHECK_EQ("p15: every thread was joined", thread_count(), threads);
    signal_gives("SIGTERM gives 143", SIGTERM, 143);
    signal_gives("SIGINT gives 130", SIGINT, 130);
    prints_nothing("nothing on stdout", "--session");
    prints_nothing("nor with graceful shutdown and no destroy", "--graceful-session");
    return harness_finish();
}
