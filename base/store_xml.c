/*
 * XML of object stores, over expat: nothing but the paths of elements and the text in them.
 *
 * A document type is refused: no store sends one, and entities are made in it. Depth, names and text are bounded.
 */
#include "stores_private.h"

#include <errno.h>
#include <expat.h>
#include <string.h>

#define PATH_BYTES 1024u
#define TEXT_BYTES (16u * 1024) /* a key has 1024 bytes, each may be three characters */

struct reader {
    XML_Parser parser;
    struct qfc_buffer path;
    struct qfc_buffer text;
    xml_element *on_element;
    void *userdata;
    struct qfc_error *error;
    bool failed; /* and said so */
};

static void stop(struct reader *reader)
{
    reader->failed = true;
    XML_StopParser(reader->parser, XML_FALSE);
}

static void stop_by_buffer(struct reader *reader, int r, const char *what)
{
    if (r == -ENOMEM)
        qfc_fail_memory(reader->error);
    else
        qfc_fail(reader->error, QFC_ERROR_INVALID, 0, "the store's XML has %s", what);
    stop(reader);
}

static void start_element(void *userdata, const char *name, const char **attributes)
{
    struct reader *reader = userdata;
    const char *local = strrchr(name, '\n'); /* after the namespace */

    if (reader->failed)
        return;
    qfc_buffer_free(&reader->text);
    int r = qfc_buffer_printf(&reader->path, "%s%s", reader->path.size ? "/" : "", local ? local + 1 : name);
    if (r < 0)
        stop_by_buffer(reader, r, "elements that are nested too deeply");
}

static void end_element(void *userdata, const char *name)
{
    struct reader *reader = userdata;
    struct qfc_buffer *path = &reader->path;

    if (reader->failed)
        return;
    if (reader->on_element(reader->userdata, qfc_buffer_text(path), qfc_buffer_text(&reader->text), reader->error) <
        0) {
        stop(reader);
        return;
    }
    const char *slash = strrchr(qfc_buffer_text(path), '/');
    path->size = slash ? (size_t)(slash - path->data) : 0;
    path->data[path->size] = '\0';
    qfc_buffer_free(&reader->text);
}

static void add_text(void *userdata, const char *text, int size)
{
    struct reader *reader = userdata;
    int r = reader->failed ? 0 : qfc_buffer_append(&reader->text, text, (size_t)size);

    if (r < 0)
        stop_by_buffer(reader, r, "an element whose text is too long");
}

static void refuse_doctype(void *userdata, const char *name, const char *system_id, const char *public_id, int internal)
{
    struct reader *reader = userdata;

    qfc_fail(reader->error, QFC_ERROR_INVALID, 0, "the store's XML has a document type");
    stop(reader);
}

static int explain(const struct reader *reader)
{
    enum XML_Error code = XML_GetErrorCode(reader->parser);

    if (reader->failed)
        return -1;
    if (code == XML_ERROR_NO_MEMORY)
        return qfc_fail_memory(reader->error);
    return qfc_fail(reader->error, QFC_ERROR_INVALID, 0, "the store's answer is not XML: %s (line %lu)",
                    XML_ErrorString(code), XML_GetCurrentLineNumber(reader->parser));
}

int store_xml_read(const char *data, size_t size, xml_element *on_element, void *userdata, struct qfc_error *error)
{
    struct reader reader = {.path = qfc_buffer(PATH_BYTES),
                            .text = qfc_buffer(TEXT_BYTES),
                            .on_element = on_element,
                            .userdata = userdata,
                            .error = error};

    reader.parser = XML_ParserCreateNS(NULL, '\n');
    if (!reader.parser)
        return qfc_fail_memory(error);
    XML_SetUserData(reader.parser, &reader);
    XML_SetElementHandler(reader.parser, start_element, end_element);
    XML_SetCharacterDataHandler(reader.parser, add_text);
    XML_SetStartDoctypeDeclHandler(reader.parser, refuse_doctype);
    int r = XML_Parse(reader.parser, size ? data : "", (int)size, XML_TRUE) == XML_STATUS_OK ? 0 : explain(&reader);
    XML_ParserFree(reader.parser);
    qfc_buffer_free(&reader.path);
    qfc_buffer_free(&reader.text);
    return r;
}

static int hex_digit(char c)
{
    const char *digits = "0123456789abcdef0123456789ABCDEF", *found = c ? strchr(digits, c) : NULL;
    return found ? (int)((found - digits) % 16) : -1;
}

bool store_decode(char *text, bool plus_is_space)
{
    char *out = text;

    for (const char *in = text; *in; in++) {
        if (*in == '%' && hex_digit(in[1]) >= 0 && hex_digit(in[2]) >= 0) {
            *out = (char)(hex_digit(in[1]) * 16 + hex_digit(in[2]));
            if (*out++ == '\0')
                return false;
            in += 2;
        } else {
            *out++ = *in == '+' && plus_is_space ? ' ' : *in;
        }
    }
    *out = '\0';
    return true;
}
