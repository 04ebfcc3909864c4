package image

// wordpressTitle is the title of the front page.
const wordpressTitle = "Reprise at work"

// wordpress is a complete site: Apache with PHP, MariaDB with its data, and
// WordPress as if somebody had just clicked through its installation.
func wordpress() Start {
	base := busybox()
	web := Rootfs{Packages: []string{"apache2", "libapache2-mod-php", "php-mysql", "php-gd", "php-cli"}}
	database := Rootfs{
		Packages: []string{"mariadb-server"},
		// Data directories are usually volumes; this one is copied up to the
		// container's writable layer, 96 MB of empty log would be too.
		Files: map[string]string{"etc/mysql/mariadb.conf.d/99-image.cnf": "[mariadbd]\ninnodb_log_file_size = 8M\n"},
	}
	site := Rootfs{
		Packages: []string{"wordpress", "wordpress-theme-twentytwentythree"},
		Files: map[string]string{
			"etc/passwd":                             wordpressUsers,
			"etc/group":                              wordpressGroups,
			"etc/apache2/sites-enabled/default.conf": wordpressVirtualHost,
			"etc/wordpress/config-default.php":       wordpressConfig,
			"start":                                  wordpressStart,
		},
		Links: map[string]string{
			"var/run":  "/run",
			"var/lock": "/run/lock",
		},
		Setup: wordpressSetup,
	}
	whole := base
	for _, r := range []Rootfs{web, database, site} {
		whole = whole.and(r)
	}
	return Start{"wordpress", whole, []Step{{Rootfs: base}, {Rootfs: web}, {Rootfs: database}, {Rootfs: site}}, []string{"/start"}}
}

// wordpressStart starts the database and the web server and prints the title
// of the front page when there is one. What it started ends with it.
const wordpressStart = `#!/bin/sh
mkdir -p /run/mysqld /run/apache2 /run/lock
chown mysql:mysql /run/mysqld
mariadbd --user=mysql >/tmp/mariadb.log 2>&1 &
until [ -S /run/mysqld/mysqld.sock ]; do sleep 0.02; done
. /etc/apache2/envvars
apache2 -k start || exit
until wget -q -O /tmp/page http://127.0.0.1/ && grep -o '<title>` + wordpressTitle + `' /tmp/page; do sleep 0.05; done
`

const (
	wordpressUsers = `root:x:0:0:root:/root:/bin/sh
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
mysql:x:101:101:MariaDB:/var/lib/mysql:/usr/sbin/nologin
`
	wordpressGroups = `root:x:0:
adm:x:4:
www-data:x:33:
mysql:x:101:
`
	wordpressVirtualHost = `ServerName localhost
<VirtualHost *:80>
	DocumentRoot /usr/share/wordpress
	Alias /wp-content /var/lib/wordpress/wp-content
	<Directory /usr/share/wordpress>
		Options FollowSymLinks
		DirectoryIndex index.php
		Require all granted
	</Directory>
	<Directory /var/lib/wordpress/wp-content>
		Require all granted
	</Directory>
</VirtualHost>
`
	wordpressConfig = `<?php
define('DB_NAME', 'wordpress');
define('DB_USER', 'wordpress');
define('DB_PASSWORD', 'wordpress');
define('DB_HOST', 'localhost');
define('DISABLE_WP_CRON', true);
define('WP_HTTP_BLOCK_EXTERNAL', true);
`
)

// wordpressSetup does what the packages' installation scripts do, and then what
// WordPress's installation page does.
const wordpressSetup = `
cd /etc/apache2
for m in access_compat alias auth_basic authn_core authn_file authz_core authz_host authz_user autoindex deflate dir env \
	filter mime mpm_prefork negotiation php8.2 reqtimeout setenvif status; do
	for f in mods-available/$m.load mods-available/$m.conf; do
		if [ -e $f ]; then ln -sf ../$f mods-enabled/; fi
	done
done
for c in charset localized-error-pages other-vhosts-access-log security serve-cgi-bin; do
	ln -sf ../conf-available/$c.conf conf-enabled/
done
mkdir -p /etc/php/8.2/mods-available
cp /usr/share/php8.2-*/*/*.ini /etc/php/8.2/mods-available/
for sapi in apache2 cli; do
	mkdir -p /etc/php/8.2/$sapi/conf.d
	cp /usr/lib/php/8.2/php.ini-production /etc/php/8.2/$sapi/php.ini
	for ini in /etc/php/8.2/mods-available/*.ini; do
		priority=$(sed -n 's/^; priority=//p' $ini)
		ln -sf $ini /etc/php/8.2/$sapi/conf.d/${priority:-20}-${ini##*/}
	done
done
mkdir -p /var/log/apache2 /var/log/mysql /var/lib/mysql /var/lib/php/sessions /run/mysqld /run/lock
chmod 1777 /tmp
chown mysql:mysql /var/lib/mysql /var/log/mysql /run/mysqld
chown -R www-data:www-data /var/lib/wordpress
ln -sf mariadb.cnf /etc/mysql/my.cnf
mariadb-install-db --force --skip-name-resolve --user=mysql --skip-test-db --auth-root-authentication-method=socket
mariadbd --user=mysql &
database=$!
for i in $(seq 100); do
	if mariadb-admin ping; then break; fi
	sleep 0.1
done
mariadb -e "create database wordpress; create user wordpress@localhost identified by 'wordpress'; grant all on wordpress.* to wordpress@localhost"
cat >/tmp/install.php <<'PHP'
<?php
$_SERVER['HTTP_HOST'] = 'localhost';
$_SERVER['SERVER_PROTOCOL'] = 'HTTP/1.1';
define('WP_INSTALLING', true);
require '/usr/share/wordpress/wp-load.php';
require ABSPATH . 'wp-admin/includes/upgrade.php';
function wp_new_blog_notification($title, $url, $user, $password) {}
wp_install('` + wordpressTitle + `', 'admin', 'admin@example.org', true, '', 'secret');
update_option('siteurl', 'http://localhost');
update_option('home', 'http://localhost');
PHP
php8.2 /tmp/install.php
mariadb-admin shutdown
wait $database
rm -rf /var/lib/mysql/ibtmp1 /tmp/install.php /run/mysqld
`
