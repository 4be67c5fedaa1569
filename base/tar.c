/*
 * tar over libarchive, as the engine's archive calls speak it: a few files in, exactly one file out. What comes out of
 * a container was named and filled by whatever ran there.
 */
#include "qfc/tar.h"
#include "qfc/text.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define TAR_BLOCK 512

struct sink {
    struct qfc_buffer *out;
    int result; /* of the last append */
};

static void free_writer(struct archive **writer)
{
    archive_write_free(*writer);
}

static void free_reader(struct archive **reader)
{
    archive_read_free(*reader);
}

static void free_entry(struct archive_entry **entry)
{
    archive_entry_free(*entry);
}

static la_ssize_t write_to_sink(struct archive *writer, void *userdata, const void *data, size_t size)
{
    struct sink *sink = userdata;
    sink->result = qfc_buffer_append(sink->out, data, size);
    if (sink->result < 0) {
        archive_set_error(writer, -sink->result, "no room");
        return -1;
    }
    return (la_ssize_t)size;
}

/* Relative, and no component "..": anything else would be written somewhere else than the caller asked for. */
static bool is_good_name(const char *name)
{
    if (!name || name[0] == '\0' || name[0] == '/')
        return false;
    for (const char *part = name; part; part = strchr(part, '/')) {
        part += *part == '/';
        if (strncmp(part, "..", 2) == 0 && (part[2] == '\0' || part[2] == '/'))
            return false;
    }
    return true;
}

static int fail_writing(struct archive *writer, const struct sink *sink, struct qfc_error *error)
{
    if (sink->result == -EMSGSIZE)
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "a tar larger than %zu bytes", sink->out->maximum);
    if (sink->result == -ENOMEM || archive_errno(writer) == ENOMEM)
        return qfc_fail_memory(error);
    return qfc_fail(error, QFC_ERROR_INVALID, 0, "write a tar: %s", archive_error_string(writer));
}

static bool is_ascii(const char *text)
{
    while (*text != '\0' && (unsigned char)*text < 0x80)
        text++;
    return *text == '\0';
}

/* hdrcharset=BINARY is a record of the pax format (POSIX.1, pax): names are bytes. So they pass as they are, where
 * libarchive would translate them from and to the process's locale. Each entry gets it: only where it is needed. */
static bool need_binary_names(const struct qfc_tar_file *files, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!is_ascii(files[i].name))
            return true;
    }
    return false;
}

static int open_writer(struct archive *writer, struct sink *sink, bool binary_names)
{
    if (archive_write_set_format_pax_restricted(writer) != ARCHIVE_OK ||
        archive_write_set_bytes_in_last_block(writer, 1) != ARCHIVE_OK)
        return -1;
    if (binary_names && archive_write_set_options(writer, "hdrcharset=BINARY") != ARCHIVE_OK)
        return -1;
    return archive_write_open(writer, sink, NULL, write_to_sink, NULL) == ARCHIVE_OK ? 0 : -1;
}

static int write_file(struct archive *writer, const struct qfc_tar_file *file)
{
    struct archive_entry *entry __attribute__((cleanup(free_entry))) = archive_entry_new();
    if (!entry) {
        archive_set_error(writer, ENOMEM, "out of memory");
        return -1;
    }
    archive_entry_set_pathname(entry, file->name);
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_perm(entry, (mode_t)file->mode);
    archive_entry_set_size(entry, (la_int64_t)file->size);
    if (archive_write_header(writer, entry) != ARCHIVE_OK)
        return -1;
    if (file->size == 0)
        return 0;
    return archive_write_data(writer, file->data, file->size) == (la_ssize_t)file->size ? 0 : -1;
}

static int write_files(const struct qfc_tar_file *files, size_t count, struct sink *sink, struct qfc_error *error)
{
    for (size_t i = 0; i < count; i++) {
        if (!is_good_name(files[i].name))
            return qfc_fail(error, QFC_ERROR_BUG, 0, "write a tar: a file's name must be relative");
    }
    struct archive *writer __attribute__((cleanup(free_writer))) = archive_write_new();
    if (!writer)
        return qfc_fail_memory(error);
    if (open_writer(writer, sink, need_binary_names(files, count)) < 0)
        return fail_writing(writer, sink, error);
    for (size_t i = 0; i < count; i++) {
        if (write_file(writer, &files[i]) < 0)
            return fail_writing(writer, sink, error);
    }
    return archive_write_close(writer) == ARCHIVE_OK ? 0 : fail_writing(writer, sink, error);
}

static void take_back(struct qfc_buffer *out, size_t size)
{
    out->size = size;
    if (out->data)
        out->data[size] = '\0';
}

int qfc_tar_write(const struct qfc_tar_file *files, size_t count, struct qfc_buffer *out, struct qfc_error *error)
{
    struct sink sink = {.out = out};
    size_t before = out->size;
    if (write_files(files, count, &sink, error) < 0) {
        take_back(out, before);
        return -1;
    }
    return 0;
}

static int fail_reading(struct archive *reader, struct qfc_error *error)
{
    const char *what = archive_error_string(reader);
    if (archive_errno(reader) == ENOMEM)
        return qfc_fail_memory(error);
    return qfc_fail(error, QFC_ERROR_INVALID, 0, "a broken tar: %s", what ? what : "no reason given");
}

/* A name from the archive, short and harmless enough for an error. */
static const char *shown(const char *utf8, const char *bytes, char *out, size_t room)
{
    const char *name = utf8 ? utf8 : bytes ? bytes : "?";
    const unsigned char *at = (const unsigned char *)name, *end = at + strlen(name);
    size_t used = 0;
    while (at < end) {
        size_t length = qfc_utf8_length(at, end);
        bool harmless = length > 0 && *at >= 0x20 && *at != 0x7F && *at != '"';
        if (used + (length ? length : 1) >= room)
            break;
        if (harmless)
            memcpy(out + used, at, length);
        else
            out[used] = '?';
        used += harmless ? length : 1;
        at += length ? length : 1;
    }
    out[used] = '\0';
    return out;
}

static const char *type_name(struct archive_entry *entry)
{
    switch (archive_entry_filetype(entry)) {
    case AE_IFDIR:
        return "a directory";
    case AE_IFIFO:
        return "a fifo";
    case AE_IFSOCK:
        return "a socket";
    case AE_IFCHR:
    case AE_IFBLK:
        return "a device";
    default:
        return "of an unknown type";
    }
}

/* Only a plain regular file whose size can be taken passes. */
static int check_entry(struct archive_entry *entry, size_t room, struct qfc_error *error)
{
    const char *link_utf8 = archive_entry_symlink_utf8(entry), *link = archive_entry_symlink(entry);
    const char *hard_utf8 = archive_entry_hardlink_utf8(entry), *hard = archive_entry_hardlink(entry);
    char name[128];
    if (hard_utf8 || hard)
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "not a regular file but a hard link to \"%s\"",
                        shown(hard_utf8, hard, name, sizeof(name)));
    if (archive_entry_filetype(entry) == AE_IFLNK)
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "not a regular file but a symbolic link to \"%s\"",
                        shown(link_utf8, link, name, sizeof(name)));
    if (archive_entry_filetype(entry) != AE_IFREG)
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "not a regular file but %s", type_name(entry));
    if (archive_entry_sparse_count(entry) > 0)
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "a sparse file");
    if (archive_entry_size(entry) < 0)
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "a broken tar: a negative size");
    if ((uint64_t)archive_entry_size(entry) > room)
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "larger than %zu bytes", room);
    return 0;
}

/* A block may be the whole file, as it stands in the archive. */
static int move_block(struct qfc_buffer *tar, const char *data, size_t size, struct qfc_buffer *out)
{
    int r = 0;
    while (r == 0 && size > 0) {
        size_t piece = size < QFC_FORGET_BYTES ? size : QFC_FORGET_BYTES;
        r = qfc_buffer_append(out, data, piece);
        data += piece;
        size -= piece;
        if (data > tar->data && data <= tar->data + tar->size)
            qfc_buffer_forget(tar, (size_t)(data - tar->data));
    }
    return r;
}

static int copy_data(struct archive *reader, struct qfc_buffer *tar, struct qfc_buffer *out, struct qfc_error *error)
{
    const void *data;
    size_t size, room = out->maximum - out->size;
    la_int64_t offset, done = 0;
    int r;
    while ((r = archive_read_data_block(reader, &data, &size, &offset)) == ARCHIVE_OK) {
        if (offset != done)
            return qfc_fail(error, QFC_ERROR_INVALID, 0, "a sparse file");
        r = move_block(tar, data, size, out);
        if (r == -EMSGSIZE)
            return qfc_fail(error, QFC_ERROR_INVALID, 0, "larger than %zu bytes", room);
        if (r < 0)
            return qfc_fail_memory(error);
        done += (la_int64_t)size;
    }
    return r == ARCHIVE_EOF ? 0 : fail_reading(reader, error);
}

/* libarchive is content with an archive that just ends; here that means that it was cut, and what else it held is
 * not known. */
static bool has_end_marker(struct archive *reader, const struct qfc_buffer *tar)
{
    la_int64_t place = archive_read_header_position(reader);
    if (place < 0 || (uint64_t)place > tar->size || tar->size - (size_t)place < TAR_BLOCK)
        return false;
    static const unsigned char zeros[TAR_BLOCK];
    return memcmp(tar->data + place, zeros, TAR_BLOCK) == 0;
}

static int read_entry(struct archive *reader, struct qfc_buffer *tar, struct qfc_buffer *out, struct qfc_error *error)
{
    struct archive_entry *entry;
    int r = archive_read_next_header(reader, &entry);
    if (r == ARCHIVE_EOF)
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "an empty tar");
    if (r != ARCHIVE_OK && r != ARCHIVE_WARN) /* a warning: of a name that the locale cannot hold */
        return fail_reading(reader, error);
    if (check_entry(entry, out->maximum - out->size, error) < 0 || copy_data(reader, tar, out, error) < 0)
        return -1;
    r = archive_read_next_header(reader, &entry);
    if (r == ARCHIVE_OK || r == ARCHIVE_WARN)
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "more than one file");
    if (r != ARCHIVE_EOF)
        return fail_reading(reader, error);
    if (!has_end_marker(reader, tar))
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "a broken tar: cut off");
    return 0;
}

int qfc_tar_read_one(struct qfc_buffer *tar, struct qfc_buffer *out, struct qfc_error *error)
{
    size_t before = out->size;
    if (tar->size == 0)
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "an empty tar");
    struct archive *reader __attribute__((cleanup(free_reader))) = archive_read_new();
    if (!reader)
        return qfc_fail_memory(error);
    if (archive_read_support_format_tar(reader) != ARCHIVE_OK ||
        archive_read_open_memory(reader, tar->data, tar->size) != ARCHIVE_OK)
        return fail_reading(reader, error);
    if (read_entry(reader, tar, out, error) < 0) {
        take_back(out, before);
        return -1;
    }
    return 0;
}
