/*
 * Reading an exported image to its end. The tar comes in any order (engines before 25 write manifest.json last), so each
 * file's digests are kept by its name, and small files that look like JSON as they are; what belongs together is looked
 * at when all was read: image_contents.c.
 *
 * libarchive passes on whatever an archive claims: names, links, sizes, sparse files. Here only what was read counts.
 */
#include "image_archive_private.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK_BYTES (256u * 1024)

/* An image has at most 127 layers, each with up to four entries, and a handful of files besides. */
#define ENTRIES_MAX    4096
#define NAME_MAX_BYTES 512
#define JSON_MAX_BYTES (1024u * 1024)
#define JSON_ALL_BYTES (8u * 1024 * 1024)

/* What is read of layers that are compressed once more: a bomb ends there. */
#define UNPACKED_MAX_BYTES (256LL * 1024 * 1024 * 1024)

#define TAR_BLOCK 512

int sha256_begin(struct digest *digest, struct qfc_error *error)
{
    digest->context = EVP_MD_CTX_new();
    if (!digest->context || EVP_DigestInit_ex(digest->context, EVP_sha256(), NULL) != 1)
        return qfc_fail_memory(error);
    return 0;
}

void sha256_add(struct digest *digest, const void *data, size_t size)
{
    EVP_DigestUpdate(digest->context, data, size);
}

void sha256_end(struct digest *digest, char out[QFC_SHA256_SIZE])
{
    unsigned char bytes[EVP_MAX_MD_SIZE];
    unsigned length = 0;

    EVP_DigestFinal_ex(digest->context, bytes, &length);
    for (unsigned i = 0; i < length && 2 * i + 2 < QFC_SHA256_SIZE; i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

void sha256_free(struct digest *digest)
{
    EVP_MD_CTX_free(digest->context);
    digest->context = NULL;
}

static bool is_stopped(struct qfc_watch *watch)
{
    return watch && atomic_load(&watch->stop);
}

static int stopped(struct qfc_error *error)
{
    return qfc_fail(error, QFC_ERROR_CHANGED, 0, "stopped");
}

static int sum_file(int fd, struct digest *digest, unsigned char *block, struct qfc_watch *watch, int64_t *ret_bytes,
                    struct qfc_error *error)
{
    int64_t bytes = 0;
    ssize_t n;

    while ((n = pread(fd, block, BLOCK_BYTES, bytes)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return qfc_fail(error, QFC_ERROR_INVALID, errno, "read it: %s", strerror(errno));
        sha256_add(digest, block, (size_t)n);
        bytes += n;
        if (watch)
            atomic_store(&watch->bytes, bytes);
        if (is_stopped(watch))
            return stopped(error);
    }
    *ret_bytes = bytes;
    return 0;
}

int qfc_file_sha256(int fd, struct qfc_watch *watch, char ret_sha256[QFC_SHA256_SIZE], int64_t *ret_bytes,
                    struct qfc_error *error)
{
    struct digest digest = {0};
    unsigned char *block = malloc(BLOCK_BYTES);
    int r = block ? sha256_begin(&digest, error) : qfc_fail_memory(error);

    if (r == 0)
        r = sum_file(fd, &digest, block, watch, ret_bytes, error);
    if (r == 0)
        sha256_end(&digest, ret_sha256);
    sha256_free(&digest);
    free(block);
    return r;
}

/* One archive that is being read. */
struct reading {
    struct archive *archive;
    struct contents *contents;
    struct qfc_watch *watch;
    struct qfc_error *error;
    int64_t unpacked; /* bytes of compressed layers so far */

    /* of the present entry */
    struct digest raw;
    struct qfc_buffer *json; /* keeps it, or null */
    int64_t size;
    bool ended;
    const void *block; /* read, and not yet given to the inner archive */
    size_t block_size;
};

static int fail_reading(struct archive *archive, const char *what, struct qfc_error *error)
{
    const char *why = archive_error_string(archive);

    if (archive_errno(archive) == ENOMEM)
        return qfc_fail_memory(error);
    return qfc_fail(error, QFC_ERROR_INVALID, 0, "%s: %s", what, why ? why : "no reason given");
}

/* The entry's next block, added to what is kept of it. 1: there is one, 0: the entry has ended, -1. */
static int next_block(struct reading *reading, const void **data, size_t *size)
{
    la_int64_t offset;
    int r = ARCHIVE_OK;

    if (reading->ended)
        return 0;
    do {
        r = archive_read_data_block(reading->archive, data, size, &offset);
    } while (r == ARCHIVE_OK && *size == 0);
    if (r == ARCHIVE_EOF) {
        reading->ended = true;
        return 0;
    }
    if (r != ARCHIVE_OK)
        return fail_reading(reading->archive, "broken", reading->error);
    if (offset != reading->size)
        return qfc_fail(reading->error, QFC_ERROR_INVALID, 0, "a sparse file");
    if (is_stopped(reading->watch))
        return stopped(reading->error);
    sha256_add(&reading->raw, *data, *size);
    if (reading->json && qfc_buffer_append(reading->json, *data, *size) < 0)
        return qfc_fail(reading->error, QFC_ERROR_INVALID, 0, "a JSON file of more than %u bytes", JSON_MAX_BYTES);
    reading->size += (la_int64_t)*size;
    if (reading->watch)
        atomic_store(&reading->watch->bytes, archive_filter_bytes(reading->archive, -1));
    return 1;
}

static la_ssize_t give_block(struct archive *inner, void *userdata, const void **ret_data)
{
    struct reading *reading = userdata;
    int r = 1;

    if (!reading->block)
        r = next_block(reading, &reading->block, &reading->block_size);
    *ret_data = reading->block;
    reading->block = NULL;
    if (r < 0)
        archive_set_error(inner, EIO, "the archive around it");
    return r < 0 ? -1 : r == 0 ? 0 : (la_ssize_t)reading->block_size;
}

static int sum_inner(struct reading *reading, struct archive *inner, struct digest *unpacked)
{
    struct archive_entry *entry;
    const void *data;
    size_t size;
    la_int64_t offset;
    int r;

    if (archive_read_open(inner, reading, NULL, give_block, NULL) != ARCHIVE_OK ||
        archive_read_next_header(inner, &entry) != ARCHIVE_OK)
        return fail_reading(inner, "its compression is broken", reading->error);
    while ((r = archive_read_data_block(inner, &data, &size, &offset)) == ARCHIVE_OK) {
        sha256_add(unpacked, data, size);
        reading->unpacked += (int64_t)size;
        if (reading->unpacked > UNPACKED_MAX_BYTES)
            return qfc_fail(reading->error, QFC_ERROR_INVALID, 0, "its layers unpack to more than %lld bytes",
                            UNPACKED_MAX_BYTES);
        if (is_stopped(reading->watch))
            return stopped(reading->error);
    }
    return r == ARCHIVE_EOF ? 0 : fail_reading(inner, "its compression is broken", reading->error);
}

/* A layer that is compressed within the tar, as engines with containerd's image store have them. */
static int sum_compressed(struct reading *reading, struct file *file)
{
    struct archive *inner = archive_read_new();
    struct digest unpacked = {0};
    int r = inner ? sha256_begin(&unpacked, reading->error) : qfc_fail_memory(reading->error);

    if (r == 0 && (archive_read_support_format_raw(inner) != ARCHIVE_OK ||
                   archive_read_support_filter_gzip(inner) != ARCHIVE_OK ||
                   archive_read_support_filter_zstd(inner) != ARCHIVE_OK))
        r = fail_reading(inner, "prepare to unpack", reading->error);
    if (r == 0)
        r = sum_inner(reading, inner, &unpacked);
    if (r == 0)
        sha256_end(&unpacked, file->unpacked);
    sha256_free(&unpacked);
    archive_read_free(inner);
    return r;
}

static bool is_compressed(const unsigned char *data, size_t size)
{
    return (size > 2 && data[0] == 0x1f && data[1] == 0x8b) || (size > 4 && memcmp(data, "\x28\xb5\x2f\xfd", 4) == 0);
}

/* JSON documents are small; which ones matter is known at the end only. */
static bool is_json(const struct reading *reading, struct archive_entry *entry, const char *data, size_t size)
{
    return size > 0 && (data[0] == '{' || data[0] == '[') && archive_entry_size(entry) <= JSON_MAX_BYTES &&
           reading->contents->json_bytes + archive_entry_size(entry) <= JSON_ALL_BYTES;
}

static int read_file(struct reading *reading, struct archive_entry *entry, struct file *file)
{
    const void *data;
    size_t size;
    int r = next_block(reading, &data, &size);

    if (r > 0 && is_json(reading, entry, data, size)) {
        file->json = qfc_buffer(JSON_MAX_BYTES);
        reading->json = &file->json;
        if (qfc_buffer_append(&file->json, data, size) < 0)
            return qfc_fail_memory(reading->error);
    } else if (r > 0 && is_compressed(data, size)) {
        reading->block = data;
        reading->block_size = size;
        if (sum_compressed(reading, file) < 0)
            return -1;
    }
    while (r > 0)
        r = next_block(reading, &data, &size);
    reading->contents->json_bytes += (int64_t)file->json.size;
    return r;
}

static int read_regular(struct reading *reading, struct archive_entry *entry, struct file *file)
{
    int r = sha256_begin(&reading->raw, reading->error);

    reading->json = NULL;
    reading->block = NULL;
    reading->size = 0;
    reading->ended = false;
    if (r == 0)
        r = read_file(reading, entry, file);
    if (r == 0)
        sha256_end(&reading->raw, file->raw);
    file->is_read = r == 0;
    sha256_free(&reading->raw);
    return r;
}

static const char *name_of(struct archive_entry *entry)
{
    const char *name = archive_entry_pathname_utf8(entry);

    if (!name)
        name = archive_entry_pathname(entry);
    while (name && strncmp(name, "./", 2) == 0)
        name += 2;
    return name;
}

static int read_entry(struct reading *reading, struct archive_entry *entry)
{
    const char *name = name_of(entry), *symlink = archive_entry_symlink(entry);
    const char *hardlink = archive_entry_hardlink(entry);

    if (!name || strlen(name) > NAME_MAX_BYTES || (symlink && strlen(symlink) > NAME_MAX_BYTES) ||
        (hardlink && strlen(hardlink) > NAME_MAX_BYTES))
        return qfc_fail(reading->error, QFC_ERROR_INVALID, 0, "a name that no image's archive has");
    if (!hardlink && archive_entry_filetype(entry) == AE_IFDIR)
        return 0;
    if (!hardlink && archive_entry_filetype(entry) != AE_IFREG && archive_entry_filetype(entry) != AE_IFLNK)
        return qfc_fail(reading->error, QFC_ERROR_INVALID, 0, "%s is neither a file nor a link", name);
    if (reading->contents->count == ENTRIES_MAX)
        return qfc_fail(reading->error, QFC_ERROR_INVALID, 0, "more than %d files", ENTRIES_MAX);
    struct file *file = contents_add(reading->contents, name, reading->error);
    if (!file)
        return -1;
    if (!hardlink && !symlink)
        return read_regular(reading, entry, file) < 0 ? qfc_context(reading->error, "%s", file->name) : 0;
    file->link_from_root = hardlink != NULL;
    file->link = strdup(hardlink ? hardlink : symlink);
    return file->link ? 0 : qfc_fail_memory(reading->error);
}

static int read_entries(struct reading *reading)
{
    struct archive_entry *entry;
    int r;

    while ((r = archive_read_next_header(reading->archive, &entry)) == ARCHIVE_OK || r == ARCHIVE_WARN)
        if (read_entry(reading, entry) < 0)
            return -1;
    if (r != ARCHIVE_EOF)
        return fail_reading(reading->archive, "broken", reading->error);
    /* libarchive is content with an archive that just ends. */
    if (archive_filter_bytes(reading->archive, 0) - archive_read_header_position(reading->archive) < TAR_BLOCK)
        return qfc_fail(reading->error, QFC_ERROR_INVALID, 0, "broken: the tar is cut off");
    return 0;
}

static int read_archive(int fd, struct contents *contents, struct qfc_watch *watch, struct qfc_error *error)
{
    struct reading reading = {
        .archive = archive_read_new(),
        .contents = contents,
        .watch = watch,
        .error = error,
    };
    int r = -1;

    if (!reading.archive)
        return qfc_fail_memory(error);
    if (lseek(fd, 0, SEEK_SET) < 0)
        qfc_fail(error, QFC_ERROR_INVALID, errno, "read it: %s", strerror(errno));
    else if (archive_read_support_format_tar(reading.archive) != ARCHIVE_OK ||
             archive_read_support_filter_gzip(reading.archive) != ARCHIVE_OK ||
             archive_read_open_fd(reading.archive, fd, BLOCK_BYTES) != ARCHIVE_OK)
        fail_reading(reading.archive, "broken", error);
    else
        r = read_entries(&reading);
    archive_read_free(reading.archive);
    return r;
}

int qfc_image_archive_verify(int fd, const char *id, struct qfc_watch *watch, struct qfc_error *error)
{
    struct contents contents = {0};
    int r = read_archive(fd, &contents, watch, error);

    if (r == 0)
        r = contents_check(&contents, id, error);
    contents_free(&contents);
    return r;
}
