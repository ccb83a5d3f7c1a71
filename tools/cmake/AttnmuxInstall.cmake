# install(EXPORT) and the package config
