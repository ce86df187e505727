/*
 * As much of TOML as the scenarios use: tables of an array, strings, numbers, booleans, lists, inline tables.
 * Anything else is an error with its line, and not a guess.
 */
#ifndef CONFORMANCE_TOML_HPP
#define CONFORMANCE_TOML_HPP

#include <cctype>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

struct value {
  enum class kind { text, number, flag, list, table } kind = kind::table;
  std::string text;
  double number = 0;
  bool flag = false;
  std::vector<value> list;
  std::map<std::string, value> table;

  bool has(const std::string &key) const { return table.count(key) != 0; }
  const value &at(const std::string &key) const {
    auto found = table.find(key);
    if (found == table.end()) throw std::runtime_error("no `" + key + "`");
    return found->second;
  }
};

class toml {
 public:
  explicit toml(const std::string &text) : text_(text) {}

  /** The document: its own keys, and `step`, a list of tables. */
  value read() {
    value document;
    value *table = &document;
    for (skip(true); at_ < text_.size(); skip(true)) {
      if (text_.compare(at_, 2, "[[") == 0) {
        at_ += 2;
        value &tables = document.table[word()];
        tables.kind = value::kind::list;
        tables.list.emplace_back();
        table = &tables.list.back();
        expect("]]");
      } else {
        pair(*table);
      }
    }
    return document;
  }

 private:
  [[noreturn]] void fail(const std::string &what) const {
    std::size_t line = 1;
    for (std::size_t i = 0; i < at_ && i < text_.size(); i++) line += text_[i] == '\n';
    throw std::runtime_error("line " + std::to_string(line) + ": " + what);
  }

  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  void skip(bool over_lines) {
    for (; at_ < text_.size(); at_++) {
      if (text_[at_] == '#') {
        while (at_ < text_.size() && text_[at_] != '\n') at_++;
      }
      const bool blank = peek() == ' ' || peek() == '\t' || (over_lines && (peek() == '\n' || peek() == '\r'));
      if (!blank) return;
    }
  }

  void expect(const std::string &what) {
    skip(false);
    if (text_.compare(at_, what.size(), what) != 0) fail("`" + what + "` expected");
    at_ += what.size();
  }

  std::string word() {
    const std::size_t from = at_;
    while (std::isalnum(static_cast<unsigned char>(peek())) || peek() == '_' || peek() == '-') at_++;
    if (from == at_) fail("a key expected");
    return text_.substr(from, at_ - from);
  }

  void pair(value &table) {
    const std::string key = word();
    expect("=");
    skip(false);
    if (!table.table.emplace(key, any()).second) fail("`" + key + "` twice");
  }

  value any() {
    value result;
    const char c = peek();
    if (c == '"') {
      result.kind = value::kind::text;
      result.text = quoted();
    } else if (c == '[') {
      result.kind = value::kind::list;
      list(result);
    } else if (c == '{') {
      at_++;
      for (skip(false); peek() != '}'; skip(false)) {
        pair(result);
        skip(false);
        if (peek() == ',') at_++;
      }
      at_++;
    } else if (std::isdigit(static_cast<unsigned char>(c))) {
      result.kind = value::kind::number;
      char *end = nullptr;
      result.number = std::strtod(text_.c_str() + at_, &end);
      at_ = static_cast<std::size_t>(end - text_.c_str());
    } else {
      result.kind = value::kind::flag;
      const std::string flag = word();
      if (flag != "true" && flag != "false") fail("a value expected");
      result.flag = flag == "true";
    }
    return result;
  }

  void list(value &result) {
    at_++;
    for (skip(true); peek() != ']'; skip(true)) {
      result.list.push_back(any());
      skip(true);
      if (peek() == ',') at_++;
      if (at_ >= text_.size()) fail("`]` expected");
    }
    at_++;
  }

  std::string quoted() {
    std::string result;
    for (at_++; peek() != '"'; at_++) {
      if (at_ >= text_.size() || peek() == '\n') fail("`\"` expected");
      if (peek() != '\\') {
        result += peek();
        continue;
      }
      at_++;
      switch (peek()) {
        case 'n': result += '\n'; break;
        case 't': result += '\t'; break;
        case '"': result += '"'; break;
        case '\\': result += '\\'; break;
        case 'u': unicode(4, result); break;
        case 'U': unicode(8, result); break;
        default: fail("an escape that is not known");
      }
    }
    at_++;
    return result;
  }

  /** The character of so many hexadecimal digits, in UTF-8. */
  void unicode(std::size_t digits, std::string &result) {
    const unsigned long code = std::strtoul(text_.substr(at_ + 1, digits).c_str(), nullptr, 16);
    at_ += digits;
    const auto add = [&](unsigned long byte) { result += static_cast<char>(byte); };
    if (code < 0x80) {
      add(code);
    } else if (code < 0x800) {
      add(0xC0 | code >> 6), add(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
      add(0xE0 | code >> 12), add(0x80 | (code >> 6 & 0x3F)), add(0x80 | (code & 0x3F));
    } else {
      add(0xF0 | code >> 18), add(0x80 | (code >> 12 & 0x3F)), add(0x80 | (code >> 6 & 0x3F)), add(0x80 | (code & 0x3F));
    }
  }

  const std::string text_;
  std::size_t at_ = 0;
};

#endif
