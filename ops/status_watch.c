/*
 * `status --watch`: the same page again and again, on the alternate screen, as large as the terminal is at that moment.
 *
 * The terminal is given back whatever ends the program, but for SIGKILL: by the signal handlers themselves, since
 * PostgreSQL may just be asked.
 */
#include "status.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#define COLUMNS 80 /* of a terminal that does not tell its size */
#define LINES   24

/* Alternate screen, no cursor, no wrapping; and back. */
static const char enter[] = "\033[?1049h\033[?25l\033[?7l\033[H\033[2J";
static const char leave[] = "\033[?7h\033[?25h\033[?1049l";

static const int ends[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGABRT, SIGSEGV, SIGBUS, SIGFPE};

static struct termios before;
static volatile sig_atomic_t entered, has_before;

/* Everything here may be called in a signal handler. */
static void restore(void)
{
    if (!entered)
        return;
    entered = 0;
    ssize_t written = write(STDOUT_FILENO, leave, sizeof leave - 1);
    (void)written;
    if (has_before)
        tcsetattr(STDIN_FILENO, TCSANOW, &before);
}

static void on_end(int number)
{
    restore();
    if (number == SIGINT)
        _exit(QFC_EXIT_OK); /* as everybody leaves it */
    signal(number, SIG_DFL);
    raise(number);
}

/* Only wakes poll(). */
static void on_change(int number)
{
}

static void write_all(const char *data, size_t size)
{
    while (size > 0) {
        ssize_t written = write(STDOUT_FILENO, data, size);
        if (written < 0 && errno != EINTR)
            return;
        if (written > 0) {
            data += written;
            size -= (size_t)written;
        }
    }
}

static void take_terminal(void)
{
    struct termios quiet;
    if (!has_before && isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &before) == 0)
        has_before = 1;
    if (has_before) {
        quiet = before;
        quiet.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        tcsetattr(STDIN_FILENO, TCSANOW, &quiet);
    }
    entered = 1;
    write_all(enter, sizeof enter - 1);
}

/* Ctrl-Z: the shell gets its terminal, and we take it again when we go on. */
static void on_stop(int number)
{
    int was = errno;
    restore();
    signal(SIGTSTP, SIG_DFL);
    raise(SIGTSTP);
    errno = was;
}

static void on_continue(int number)
{
    struct sigaction stop = {.sa_handler = on_stop};
    int was = errno;
    sigaction(SIGTSTP, &stop, NULL);
    if (!entered)
        take_terminal();
    errno = was;
}

static void handle_signals(void)
{
    struct sigaction end = {.sa_handler = on_end, .sa_flags = (int)SA_RESETHAND};
    struct sigaction change = {.sa_handler = on_change}, stop = {.sa_handler = on_stop};
    struct sigaction resume = {.sa_handler = on_continue};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        sigaction(ends[i], &end, NULL);
    sigaction(SIGWINCH, &change, NULL);
    sigaction(SIGTSTP, &stop, NULL);
    sigaction(SIGCONT, &resume, NULL);
    signal(SIGPIPE, SIG_IGN);
    atexit(restore);
}

static void get_size(size_t *columns, size_t *lines)
{
    struct winsize size = {0};
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0;
    *columns = known ? size.ws_col : COLUMNS;
    *lines = known ? size.ws_row : LINES;
}

/* The page as one write: each line is cleared first (behind its last place that would take that one along), and what is
 * below at last; the last line gets no newline, which would scroll. */
static void draw(const char *page)
{
    struct qfc_buffer frame = qfc_buffer(2 * STATUS_MAX_BYTES);
    int r = qfc_buffer_append_text(&frame, "\033[H");
    while (r == 0 && *page) {
        size_t length = strcspn(page, "\n");
        r = qfc_buffer_printf(&frame, "\033[K%.*s%s", (int)length, page,
                              page[length] && page[length + 1] ? "\r\n" : "");
        page += length + (page[length] == '\n');
    }
    if (r == 0)
        r = qfc_buffer_append_text(&frame, "\033[J");
    if (r == 0)
        write_all(frame.data, frame.size);
    qfc_buffer_free(&frame);
}

/* What is looked at, and how. */
struct watch {
    const struct qfc_settings *settings;
    double every_s;
    PGconn *connection; /* null: not connected */
    struct qfc_release release;
    struct qfc_report report; /* the last one, which stays while the database is away */
    bool has_report;
    struct qfc_error trouble;
};

static void look(struct watch *watch)
{
    struct qfc_report report;
    struct qfc_error error = QFC_NO_ERROR;
    int r = 0;
    if (!watch->connection) {
        r = database_open(watch->settings, "qfc-worker status --watch", &watch->connection, &error);
        if (r == 0)
            r = database_release(watch->connection, &watch->release, &error);
    }
    if (r == 0)
        r = database_report(watch->connection, &watch->release, &report, &error);
    watch->trouble = error;
    if (r < 0) { /* also after an upgrade under our eyes: the next look asks for the release anew */
        PQfinish(watch->connection);
        watch->connection = NULL;
        return;
    }
    if (watch->has_report)
        qfc_report_free(&watch->report);
    watch->report = report;
    watch->has_report = true;
}

static void show(const struct watch *watch)
{
    struct qfc_buffer page = qfc_buffer(STATUS_MAX_BYTES);
    struct qfc_error error = QFC_NO_ERROR;
    size_t columns, lines;
    get_size(&columns, &lines);
    bool trouble = *watch->trouble.message != '\0';
    int r = 0;
    if (trouble)
        r = qfc_buffer_printf(&page, "! %s%s\n", watch->trouble.message,
                              watch->has_report ? " (below: what was seen last)" : "");
    if (r == 0 && watch->has_report && lines > trouble)
        r = status_text(&watch->report, &watch->release, columns, lines - trouble, &page, &error);
    draw(r == 0 ? qfc_buffer_text(&page) : "out of memory\n");
    qfc_buffer_free(&page);
}

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Waits for the next look. Another size of the terminal is drawn at once. False: a key has asked for the end. */
static bool wait_for(const struct watch *watch, double until_s)
{
    struct pollfd input = {.fd = has_before ? STDIN_FILENO : -1, .events = POLLIN};
    for (double left; (left = until_s - now_s()) > 0;) {
        char key;
        int ready = poll(&input, 1, (int)ceil(left * 1000));
        if (ready < 0)
            show(watch);
        else if (ready > 0 && read(STDIN_FILENO, &key, 1) <= 0)
            input.fd = -1;
        else if (ready > 0)
            return key != 'q' && key != 'Q' && key != 4;
    }
    return true;
}

int status_watch(const struct qfc_settings *settings, double every_s)
{
    struct watch watch = {.settings = settings, .every_s = every_s};
    const char *kind = getenv("TERM");
    if (!isatty(STDOUT_FILENO) || !kind || strcmp(kind, "dumb") == 0)
        return wrong("--watch needs a terminal; without one there are status --json and status --csv FILE", NULL);
    handle_signals();
    take_terminal();
    do {
        double began_s = now_s();
        look(&watch);
        show(&watch);
        if (!wait_for(&watch, began_s + every_s))
            break;
    } while (isatty(STDOUT_FILENO));
    restore();
    if (watch.has_report)
        qfc_report_free(&watch.report);
    PQfinish(watch.connection);
    return QFC_EXIT_OK;
}
