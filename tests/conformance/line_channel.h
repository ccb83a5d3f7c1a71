// Lines of JSON over a socket, between who gives a job and the process that does it: answers carry the job's secret.
//
//   const json job = json::parse(read_line(socket));
//   const LineChannel channel(socket, job.at("secret"));
//   channel.send({{"done", true}});
//
// Where the other side is gone, the process that does the job ends.
#pragma once

#include <sys/socket.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <utility>

namespace attnmux::conformance {

inline std::string read_line(int socket) {
  std::string line;
  char bytes[65536];
  while (line.find('\n') == std::string::npos) {
    const ssize_t got = ::recv(socket, bytes, sizeof bytes, 0);
    if (got <= 0) ::_exit(2);  // started by hand, or nobody is left to answer
    line.append(bytes, static_cast<size_t>(got));
  }
  return line;
}

class LineChannel {
 public:
  LineChannel(int socket, std::string secret) : socket_(socket), secret_(std::move(secret)) {}
  void send(nlohmann::json answer) const {
    answer["secret"] = secret_;
    const std::string line = answer.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
    for (size_t sent = 0; sent < line.size();) {
      const ssize_t more = ::send(socket_, line.data() + sent, line.size() - sent, MSG_NOSIGNAL);
      if (more <= 0) ::_exit(2);
      sent += static_cast<size_t>(more);
    }
  }

 private:
  int socket_;
  std::string secret_;
};

// For one job: nobody can guess it.
inline std::string new_secret() {
  std::random_device device;
  std::string text;
  for (int i = 0; i < 8; ++i) text += std::to_string(device());
  return text;
}

// The answer in a line, if it carries the secret; null otherwise.
inline nlohmann::json answer_in(const std::string& line, const std::string& secret) {
  nlohmann::json answer = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!answer.is_object() || answer.value("secret", nlohmann::json()) != nlohmann::json(secret)) return nullptr;
  return answer;
}

}  // namespace attnmux::conformance
